package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// serialForm is the serial console's character device.
var serialForm = regexp.MustCompile(`^socket,id=(char[a-z-]*serial0),`)

// errArguments: QEMU's arguments have not the form that libvirt gives them.
var errArguments = errors.New("QEMU's arguments")

// plainArguments turns the arguments that libvirt gave QEMU into those of a QEMU
// that somebody starts by hand: no monitor, no secret, the console on stdout,
// CPUs running from the start. address is the passed-through function, which
// becomes @VF@. Everything that the guest sees stays.
func plainArguments(args []string, address string) ([]string, error) {
	var out []string
	console, device := false, false
	for i := 0; i < len(args); i++ {
		a := args[i]
		value := ""
		if i+1 < len(args) {
			value = args[i+1]
		}
		switch {
		case a == "-S", a == "-no-shutdown":
			continue
		case a == "-object" && strings.Contains(value, `"masterKey0"`),
			a == "-mon",
			a == "-chardev" && strings.Contains(value, "id=charmonitor"):
			i++
			continue
		case a == "-chardev" && serialForm.MatchString(value):
			out = append(out, a, "stdio,id="+serialForm.FindStringSubmatch(value)[1]+",signal=off")
			console = true
			i++
			continue
		}
		if strings.Contains(a, address) {
			a = strings.ReplaceAll(a, address, "@VF@")
			device = true
		}
		if strings.Contains(a, "fd=") || strings.Contains(a, `"fds"`) {
			return nil, fmt.Errorf("%w: %q needs a file of libvirt's", errArguments, a)
		}
		out = append(out, a)
	}
	if !console || !device {
		return nil, fmt.Errorf("%w: serial console found: %t, device %s found: %t: %q", errArguments, console, address, device, args)
	}
	return out, nil
}
