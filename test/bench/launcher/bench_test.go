package main

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlainArguments(t *testing.T) {
	libvirt := []string{
		"-name", "guest=vm,debug-threads=on", "-S", "-object", `{"qom-type":"secret","id":"masterKey0","file":"/x"}`,
		"-machine", "pc-q35-10.0,usb=off", "-chardev", "socket,id=charmonitor,fd=25,server=on,wait=off",
		"-mon", "chardev=charmonitor,id=monitor,mode=control", "-no-shutdown", "-kernel", "/guest/boot/vmlinux",
		"-chardev", "socket,id=charua-serial0,fd=24,server=on,wait=off", "-device", `{"driver":"isa-serial","chardev":"charua-serial0"}`,
		"-device", `{"driver":"vfio-pci","host":"0000:21:10.0","id":"ua-vf0"}`,
	}
	want := []string{
		"-name", "guest=vm,debug-threads=on", "-machine", "pc-q35-10.0,usb=off", "-kernel", "/guest/boot/vmlinux",
		"-chardev", "stdio,id=charua-serial0,signal=off", "-device", `{"driver":"isa-serial","chardev":"charua-serial0"}`,
		"-device", `{"driver":"vfio-pci","host":"@VF@","id":"ua-vf0"}`,
	}
	got, err := plainArguments(libvirt, "0000:21:10.0")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for name, args := range map[string][]string{
		"no device":       libvirt[:len(libvirt)-2],
		"another's file":  append([]string{"-netdev", "vhost,fd=7"}, libvirt...),
		"cut in the flag": {"-chardev"},
	} {
		if _, err := plainArguments(args, "0000:21:10.0"); !errors.Is(err, errArguments) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBetween(t *testing.T) {
	log := "2026-11-26T10:00:00.5Z KUBEVFIO-BENCH start\n2026-11-26T10:00:01Z noise\n2026-11-26T10:00:07.75Z \rKUBEVFIO-GUEST ready\n"
	s, err := between(strings.NewReader(log))
	if err != nil || s != 7.25 {
		t.Errorf("%v, %v", s, err)
	}
	for _, bad := range []string{"", "2026-11-26T10:00:00.5Z KUBEVFIO-BENCH start\n", "2026-11-26T10:00:07.75Z KUBEVFIO-GUEST ready\n"} {
		if _, err := between(strings.NewReader(bad)); !errors.Is(err, errNoGuest) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := between(strings.NewReader("yesterday KUBEVFIO-BENCH start\n")); err == nil {
		t.Error("no time stamp, no error")
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values  []float64
		q, want float64
	}{
		{[]float64{3, 1, 2}, 0.5, 2}, {[]float64{4, 1, 2, 3}, 0.5, 2.5}, {[]float64{5}, 0.75, 5}, {[]float64{1, 2, 3, 4, 5}, 0.25, 2},
	} {
		if got := quantile(c.values, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
}

func TestPhases(t *testing.T) {
	runs := []runResult{
		{Kind: "warm", Phases: map[string]float64{"libvirt": 1, "qemu": 3}}, {Kind: "warm", Phases: map[string]float64{"libvirt": 2}},
		{Kind: "cold", Phases: map[string]float64{"libvirt": 9}}, {Kind: "plain"},
	}
	if d := cmp.Diff(map[string]float64{"libvirt": 1.5, "qemu": 3}, phases(runs, "warm")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
