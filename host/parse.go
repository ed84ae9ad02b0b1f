package host

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// ErrParse is the class of errors about kernel text that is not what the
// kernel's documentation promises.
var ErrParse = errors.New("unexpected text from the kernel")

// line is the text without white space around it.
func line(b []byte) string { return string(bytes.TrimSpace(b)) }

// hexField reads a number as sysfs prints identities: "0x10de", or bare digits
// in some captures.
func hexField(b []byte, bits int) (uint64, error) {
	s := strings.TrimPrefix(strings.ToLower(line(b)), "0x")
	v, err := strconv.ParseUint(s, 16, bits)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is no %d-bit hexadecimal number", ErrParse, clip(b), bits)
	}
	return v, nil
}

// intField reads a decimal number.
func intField(b []byte) (int, error) {
	v, err := strconv.Atoi(line(b))
	if err != nil {
		return 0, fmt.Errorf("%w: %q is no number", ErrParse, clip(b))
	}
	return v, nil
}

// clip shortens text for error messages.
func clip(b []byte) string {
	const limit = 40
	s := line(b)
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return s
}

// cut splits at the first new line.
func cut(b []byte) (first, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// identity is what a PCI function's uevent file says of it.
type identity struct {
	vendor, device, subVendor, subDevice uint16
	class                                uint32
	modalias                             []byte
	// has* tell which of the three lines were there and right.
	hasID, hasClass, hasSub bool
}

// parseUevent reads the uevent file of a PCI function (pci_uevent in the
// kernel): one read instead of six. Lines that it does not know, and lines
// that are not what they should be, are left out.
func parseUevent(b []byte) identity {
	var id identity
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		key, value, ok := bytes.Cut(l, []byte{'='})
		if !ok {
			continue
		}
		switch string(key) {
		case "PCI_CLASS":
			if v, ok := hexBytes(value, 6); ok {
				id.class, id.hasClass = uint32(v), true
			}
		case "PCI_ID":
			id.vendor, id.device, id.hasID = idPair(value)
		case "PCI_SUBSYS_ID":
			id.subVendor, id.subDevice, id.hasSub = idPair(value)
		case "MODALIAS":
			id.modalias = bytes.TrimSpace(value)
		}
	}
	return id
}

// idPair reads "10DE:25B6".
func idPair(b []byte) (uint16, uint16, bool) {
	x, y, ok := bytes.Cut(bytes.TrimSpace(b), []byte{':'})
	if !ok {
		return 0, 0, false
	}
	v, ok1 := hexBytes(x, 4)
	d, ok2 := hexBytes(y, 4)
	return uint16(v), uint16(d), ok1 && ok2
}

// hexBytes reads 1 to limit bare hex digits.
func hexBytes(b []byte, limit int) (uint64, bool) {
	if len(b) == 0 || len(b) > limit {
		return 0, false
	}
	var v uint64
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, true
}

// Flags of struct resource, include/linux/ioport.h.
const (
	ioresourceIO       = 0x00000100
	ioresourceMem      = 0x00000200
	ioresourcePrefetch = 0x00002000
	ioresourceMem64    = 0x00100000
	romResource        = 6 // PCI_ROM_RESOURCE: the line after the six BARs
)

// parseResource reads a function's resource file: one "start end flags" line
// per region, the six BARs first, then the expansion ROM. Later lines (VF BARs,
// bridge windows) are not asked for. Regions without a size are left out.
func parseResource(b []byte) (bars []topology.BAR, rom uint64, err error) {
	for i := 0; i <= romResource && len(b) > 0; i++ {
		var l []byte
		l, b = cut(b)
		var v [3]uint64
		rest := bytes.TrimSpace(l)
		for j := range v {
			var field []byte
			field, rest, _ = bytes.Cut(rest, []byte{' '})
			if len(field) < 3 || field[0] != '0' || field[1] != 'x' {
				return nil, 0, fmt.Errorf("%w: resource line %d is %q, want three 0x numbers", ErrParse, i, clip(l))
			}
			n, ok := hexBytes(field[2:], 16)
			if !ok {
				return nil, 0, fmt.Errorf("%w: resource line %d is %q, want three 0x numbers", ErrParse, i, clip(l))
			}
			v[j] = n
		}
		start, end, flags := v[0], v[1], v[2]
		if flags&(ioresourceIO|ioresourceMem) == 0 || end <= start {
			continue
		}
		size := end - start + 1
		if i == romResource {
			rom = size
			continue
		}
		bars = append(bars, topology.BAR{
			Index:        i,
			Bytes:        size,
			IO:           flags&ioresourceIO != 0,
			Is64:         flags&ioresourceMem64 != 0,
			Prefetchable: flags&ioresourcePrefetch != 0,
		})
	}
	return bars, rom, nil
}

// parseSpeed reads a link speed, "16.0 GT/s PCIe" or "8 GT/s", in MT/s; 0 for
// "Unknown".
func parseSpeed(b []byte) int {
	s, _, _ := strings.Cut(line(b), " ")
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 1e6 {
		return 0
	}
	return int(v*1000 + 0.5)
}

// parseWidth reads a link width in lanes. Ports without a link say 0 or 255.
func parseWidth(b []byte) int {
	v, err := intField(b)
	if err != nil || v < 0 || v >= 255 {
		return 0
	}
	return v
}

// maxListID bounds the numbers in lists: above any kernel's NR_CPUS.
const maxListID = 1 << 20

// ParseList reads the kernel's list format, "0-3,8,10-11", into sorted numbers.
// Empty text is an empty list. Errors are of class [ErrParse].
func ParseList(s string) ([]int, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(lo)
		b := a
		if err == nil && ranged {
			b, err = strconv.Atoi(hi)
		}
		if err != nil || a < 0 || b < a || b > maxListID {
			return nil, fmt.Errorf("%w: %q in list %q", ErrParse, part, clip([]byte(s)))
		}
		if len(out) > 0 && a <= out[len(out)-1] {
			return nil, fmt.Errorf("%w: list %q is not in rising order at %q", ErrParse, clip([]byte(s)), part)
		}
		for i := a; i <= b; i++ {
			out = append(out, i)
		}
	}
	return out, nil
}

// FormatList is the inverse of [ParseList]; the numbers are sorted.
func FormatList(ids []int) string {
	var b strings.Builder
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(ids[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(ids[j]))
		}
		i = j + 1
	}
	return b.String()
}

// parseMask reads the kernel's mask format, "00000000,0000000f", the lowest
// word last. Kernels before 2.6.28 and old captures have it where later ones
// have lists.
func parseMask(s string) ([]int, error) {
	words := strings.Split(strings.TrimSpace(s), ",")
	if len(words) > maxListID/32 {
		return nil, fmt.Errorf("%w: mask of %d words", ErrParse, len(words))
	}
	var out []int
	for i := len(words) - 1; i >= 0; i-- {
		w := strings.TrimPrefix(words[i], "0x")
		v, ok := hexBytes([]byte(w), 8)
		if !ok {
			return nil, fmt.Errorf("%w: mask %q", ErrParse, clip([]byte(s)))
		}
		for bit := range 32 {
			if v>>bit&1 != 0 {
				out = append(out, (len(words)-1-i)*32+bit)
			}
		}
	}
	return out, nil
}

// isUUID tells the names of mediated devices from other entries.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if _, ok := hexBytes([]byte{s[i]}, 1); !ok {
				return false
			}
		}
	}
	return true
}

// isAddress tells PCI addresses from other path components without making an
// error value for each.
func isAddress(s string) bool {
	n := len(s)
	if n < 12 || n > 16 || s[n-2] != '.' || s[n-5] != ':' || s[n-8] != ':' {
		return false
	}
	_, err := topology.ParseAddress(s)
	return err == nil
}

// isRoot tells host bridges ("pci0000:80") from other path components.
func isRoot(s string) bool {
	d, bus, ok := strings.Cut(s, ":")
	if !ok || len(bus) != 2 || !strings.HasPrefix(d, "pci") || len(d) < len("pci0000") || len(d) > len("pci00000000") {
		return false
	}
	_, ok1 := hexBytes([]byte(d[3:]), 8)
	_, ok2 := hexBytes([]byte(bus), 2)
	return ok1 && ok2
}
