package draw

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Text draws the box and what is in it as a tree of lines for a terminal. Virtual
// functions of a group that are in the same state share a line.
func Text(w io.Writer, b *Box) error {
	out := bufio.NewWriter(w)
	_, _ = fmt.Fprintln(out, join(b.Title, b.Lines...)) // a bufio.Writer keeps its error for Flush
	branches(out, rows(b), "")
	return out.Flush()
}

// row is a line of the tree with the lines below it.
type row struct {
	cells []string // aligned with those of the neighbours
	inner []row
}

func join(first string, more ...string) string {
	return strings.Join(append([]string{first}, more...), "  ")
}

func rows(b *Box) []row {
	if b.Kind == Group {
		return runs(b.Inner)
	}
	list := make([]row, 0, len(b.Inner))
	for _, c := range b.Inner {
		r := row{cells: []string{join(c.Title, c.Lines...)}, inner: rows(c)}
		if c.Kind.Device() {
			r.cells = append(append([]string{c.Title}, c.Lines...), status(c))
			if c.Tip != "" {
				r.inner = append(r.inner, row{cells: []string{c.Tip}})
			}
		}
		list = append(list, r)
	}
	return list
}

// status is a device's state in words.
func status(b *Box) string {
	words := []string{}
	switch b.State {
	case Held:
		words = append(words, "held by "+b.Holder)
	case Free:
		words = append(words, "free")
	case NotOffered:
		words = append(words, "not offered")
	}
	if b.Problem != "" {
		words = append(words, "NOT READY: "+b.Problem)
	}
	return strings.Join(words, ", ")
}

// runs joins neighbours of the same state: "0000:14:00.4 … 0000:14:01.3  8 free".
func runs(list []*Box) []row {
	var out []row
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && status(list[j]) == status(list[i]) {
			j++
		}
		name, what := list[i].Title, status(list[i])
		switch n := j - i; {
		case n == 2:
			name += ", " + list[j-1].Title
		case n > 2:
			name += " … " + list[j-1].Title
			what = fmt.Sprintf("%d %s", n, what)
		}
		out = append(out, row{cells: []string{name, what}})
		i = j
	}
	return out
}

func branches(w io.Writer, list []row, indent string) {
	var widths []int
	for _, r := range list {
		for i, c := range r.cells[:len(r.cells)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for i, r := range list {
		line, below := indent+"├─ ", indent+"│  "
		if i == len(list)-1 {
			line, below = indent+"└─ ", indent+"   "
		}
		for j, c := range r.cells {
			if j > 0 {
				line += "  "
			}
			line += c
			if j < len(r.cells)-1 {
				line += strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c))
			}
		}
		_, _ = fmt.Fprintln(w, strings.TrimRight(line, " "))
		branches(w, r.inner, below)
	}
}
