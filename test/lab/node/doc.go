// Command lab-node is the init of the lab's node VMs: one static binary that is /init of the initramfs (it loads modules,
// finds the disks and switches to Debian's root file system) and then PID 1 of the node, in place of systemd: mounts,
// network, containerd, kubelet and kube-proxy, all kept running, and a control port for the lab (package nodeapi).
//
// For the lab only. It is told everything by a tar archive on a virtio disk; nothing is on the kernel command line.
//
// Traps:
//   - Log ports are virtio-serial ports, and such a port can be opened only once at a time: init opens it and keeps it open,
//     the processes write into pipes.
//   - There is no udev: device nodes come from devtmpfs with the kernel's own modes (/dev/kvm is root's), links such as
//     /dev/disk/by-id do not exist.
//   - Messages go to /dev/kmsg, so that the serial console shows them in order with the kernel's.
package main
