// Command lab-guest is the init of the lab's test guests: the only program of an initramfs that boots in seconds even under
// doubly emulated virtualisation. It loads the modules that the devices ask for, reports on the console what the guest sees,
// carries out what the kernel command line says, and then offers a small shell on the console.
//
// It is for the lab's demo and tests, which read the report from the launcher's stdout (package test/scenario).
//
// Where the guest has a port for a guest agent, it answers there: host name, system and addresses.
//
// # Report
//
// Every line starts with "KUBEVFIO-GUEST " and a word:
//
//	ready                        userspace is up, the devices are known
//	lspci LINE                   a line of lspci -nn
//	pci ADDRESS VENDOR:DEVICE class=CCSSPP numa=N driver=NAME
//	net NAME mac=MAC driver=NAME pci=ADDRESS
//	disk NAME bytes=N model=TEXT
//	cpu count=N nodes=N
//	memory node=N kib=N
//	ip NAME ADDRESS/LENGTH
//	ping sent=N received=N avg_ms=N   of one second each, to the peer of kubevfio.ping
//	passt ip=A gateway=A gateway_mac=MAC ms=N | passt error=TEXT
//	tcp ADDRESS:PORT ok ms=N | tcp ADDRESS:PORT error=TEXT
//	report-end                   everything up to here is said once
//	shutdown reason=TEXT         the guest switches off
//
// # Kernel command line
//
//	kubevfio.ip=A/LEN       the address of the VF's interface (driver igbvf, else the first that is not virtio)
//	kubevfio.ping=A[,A]     peers to ping over it, once a second until kubevfio.count replies came from each
//	kubevfio.count=N        default 0: for ever
//	kubevfio.passt=dhcp|off|A/LEN,GATEWAY   what to do with virtio network cards; default dhcp
//	kubevfio.tcp=A:PORT     connect there over the virtio network card and say whether it worked
//	kubevfio.panic=1        crash the kernel after the report
//	kubevfio.poweroff=N     switch off N seconds after the report
//
// # Traps
//
//   - It is PID 1: it must not return, and it reaps whatever its shell leaves.
//   - Everything runs under emulation inside of emulation: a new process costs a tenth of a second and more, so that the
//     report is read from /sys without any.
//   - No udev: device nodes are devtmpfs'.
package main
