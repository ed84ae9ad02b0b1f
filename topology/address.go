package topology

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrAddress is the class of all errors about malformed PCI addresses.
var ErrAddress = errors.New("not a PCI address")

// Address is the place of a PCI function: domain, bus, device and function.
// Domains have up to 32 bits (VMD and Hyper-V make such), devices 5 bits and
// functions 3. The zero value is the valid address 0000:00:00.0.
//
// Its text form is Linux's own, lower case, the domain in at least four hex
// digits: "0000:81:10.3", "10000:01:00.0".
type Address struct {
	Domain   uint32
	Bus      uint8
	Device   uint8
	Function uint8
}

// ParseAddress reads the form domain:bus:device.function with a domain of 4 to
// 8 hex digits, in either case. Errors are of class [ErrAddress].
func ParseAddress(s string) (Address, error) {
	bad := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("%w: %q: %s; want domain:bus:device.function such as 0000:81:00.0", ErrAddress, s, why)
	}
	dom, rest, ok := strings.Cut(s, ":")
	if !ok || len(dom) < 4 || len(dom) > 8 || !isHex(dom) {
		return bad("the domain is not 4 to 8 hex digits")
	}
	if len(dom) > 4 && dom[0] == '0' {
		return bad("the domain has leading zeros")
	}
	// What remains is exactly "bb:dd.f".
	if len(rest) != 7 || rest[2] != ':' || rest[5] != '.' {
		return bad("bus, device and function are not bb:dd.f")
	}
	bus, dev, fn := rest[0:2], rest[3:5], rest[6:7]
	if !isHex(bus) || !isHex(dev) || !isHex(fn) {
		return bad("bus, device or function is not hexadecimal")
	}
	d, _ := strconv.ParseUint(dom, 16, 32)
	b, _ := strconv.ParseUint(bus, 16, 8)
	v, _ := strconv.ParseUint(dev, 16, 8)
	f, _ := strconv.ParseUint(fn, 16, 8)
	if v > 31 {
		return bad("the device is above 1f")
	}
	if f > 7 {
		return bad("the function is above 7")
	}
	return Address{Domain: uint32(d), Bus: uint8(b), Device: uint8(v), Function: uint8(f)}, nil
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return s != ""
}

// String is the address as Linux writes it.
func (a Address) String() string {
	var b [16]byte
	return string(a.append(b[:0]))
}

// append writes by hand: hosts with thousands of functions format many.
func (a Address) append(b []byte) []byte {
	const hex = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		if shift < 16 || a.Domain>>shift != 0 {
			b = append(b, hex[a.Domain>>shift&0xf])
		}
	}
	return append(b, ':', hex[a.Bus>>4], hex[a.Bus&0xf], ':', hex[a.Device>>4], hex[a.Device&0xf], '.', hex[a.Function&0xf])
}

// Compare orders by domain, bus, device and function; it returns -1, 0 or +1.
func (a Address) Compare(b Address) int {
	return cmp.Or(
		cmp.Compare(a.Domain, b.Domain),
		cmp.Compare(a.Bus, b.Bus),
		cmp.Compare(a.Device, b.Device),
		cmp.Compare(a.Function, b.Function),
	)
}

// MarshalText implements [encoding.TextMarshaler]; JSON and YAML carry the
// string form.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Address) UnmarshalText(b []byte) error {
	p, err := ParseAddress(string(b))
	if err != nil {
		return err
	}
	*a = p
	return nil
}
