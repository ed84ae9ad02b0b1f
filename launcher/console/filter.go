package console

import "unicode/utf8"

// maxSequence bounds a colour sequence: ESC [, parameters, m. Longer ones are
// no colours that any program makes.
const maxSequence = 64

// Filter turns a terminal's byte stream into plain text and colours: it lets
// through printable UTF-8, tab, newline, carriage return, backspace and complete
// SGR sequences (ESC [ numbers m), and drops everything else: other escape and
// control sequences, control strings with their content, C0 and C1 controls and
// bytes that are no UTF-8, for which U+FFFD stands in.
//
// The zero value is ready. A Filter keeps state between calls, so a sequence cut
// in two by a read is still recognised. It is not safe for concurrent use.
type Filter struct {
	state filterState
	seq   []byte // an SGR sequence in the making
	rune  []byte // a UTF-8 sequence in the making
	esc   bool   // inside a control string: the last byte was ESC
	long  int    // bytes of the control string so far
}

type filterState int

const (
	ground    filterState = iota
	escape                // after ESC
	escapeMid             // after ESC and an intermediate byte
	csi                   // after ESC [, still possibly a colour
	csiIgnore             // after ESC [, certainly no colour
	str                   // inside OSC, DCS, APC, PM or SOS
)

// maxString bounds a control string. A guest that never ends one must not hide
// its console for ever.
const maxString = 4096

// Append filters p and appends the result to dst.
func (f *Filter) Append(dst, p []byte) []byte {
	for _, c := range p {
		dst = f.step(dst, c)
	}
	return dst
}

func (f *Filter) step(dst []byte, c byte) []byte {
	// Inside a multi-byte rune of the ground state.
	if len(f.rune) > 0 {
		if c >= 0x80 && c < 0xc0 {
			f.rune = append(f.rune, c)
			return f.flushRune(dst)
		}
		f.rune = f.rune[:0]
		dst = utf8.AppendRune(dst, utf8.RuneError)
	}
	if f.state == str {
		return f.inString(dst, c)
	}
	// CAN and SUB end any sequence; ESC begins a new one.
	switch c {
	case 0x18, 0x1a:
		f.state = ground
		return dst
	case 0x1b:
		f.state = escape
		return dst
	}
	switch f.state {
	case escape:
		f.afterEscape(c)
		return dst
	case escapeMid:
		if c >= 0x30 {
			f.state = ground
		}
		return dst
	case csi:
		return f.inCSI(dst, c)
	case csiIgnore:
		if c >= 0x40 {
			f.state = ground
		}
		return dst
	default:
		return f.inGround(dst, c)
	}
}

func (f *Filter) inGround(dst []byte, c byte) []byte {
	switch {
	case c == '\n', c == '\r', c == '\t', c == '\b', c >= 0x20 && c < 0x7f:
		return append(dst, c)
	case c < 0x20 || c == 0x7f:
		return dst
	case c >= 0xc2 && c <= 0xf4:
		f.rune = append(f.rune[:0], c)
		return dst
	default:
		return utf8.AppendRune(dst, utf8.RuneError)
	}
}

// flushRune writes the rune in the making once it is complete; runes of the C1
// control block and invalid ones do not get through.
func (f *Filter) flushRune(dst []byte) []byte {
	if !utf8.FullRune(f.rune) {
		return dst
	}
	r, size := utf8.DecodeRune(f.rune)
	whole := size == len(f.rune)
	f.rune = f.rune[:0]
	switch {
	case !whole || r == utf8.RuneError:
		return utf8.AppendRune(dst, utf8.RuneError)
	case r < 0xa0, dangerous(r):
		return dst
	default:
		return utf8.AppendRune(dst, r)
	}
}

// dangerous runes change how the text around them is shown: bidirectional
// overrides and isolates, which can make a log line read as something else.
func dangerous(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func (f *Filter) afterEscape(c byte) {
	switch {
	case c == '[':
		f.state = csi
		f.seq = append(f.seq[:0], 0x1b, '[')
	case c == ']', c == 'P', c == '_', c == '^', c == 'X':
		f.state, f.esc, f.long = str, false, 0
	case c >= 0x20 && c <= 0x2f:
		f.state = escapeMid
	default:
		f.state = ground
	}
}

func (f *Filter) inCSI(dst []byte, c byte) []byte {
	switch {
	case c >= '0' && c <= '9', c == ';', c == ':':
		if len(f.seq) >= maxSequence {
			f.state = csiIgnore
			return dst
		}
		f.seq = append(f.seq, c)
	case c == 'm':
		f.state = ground
		dst = append(append(dst, f.seq...), 'm')
	case c >= 0x40:
		f.state = ground
	case c >= 0x20:
		f.state = csiIgnore
	}
	return dst
}

func (f *Filter) inString(dst []byte, c byte) []byte {
	f.long++
	switch {
	case c == 0x07, c == 0x18, c == 0x1a, f.esc && c == '\\', f.long > maxString:
		f.state, f.esc = ground, false
	default:
		f.esc = c == 0x1b
	}
	return dst
}
