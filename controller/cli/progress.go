package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// progress tells people how a long wait goes: on a terminal by one line that counts
// the seconds, elsewhere by a line for each thing that is new.
type progress struct {
	out io.Writer
	// width of the terminal in characters, 0 when there is none.
	width int
	now   func() time.Time

	began time.Time
	last  string
	shown bool
}

func newProgress(out io.Writer, now func() time.Time) *progress {
	p := &progress{out: out, now: now, began: now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			p.width = w
		}
	}
	return p
}

// say tells what is being waited for now; text is one line.
func (p *progress) say(text string) {
	if p.width == 0 {
		if text != p.last && text != "" {
			fmt.Fprintf(p.out, "%s\n", text)
		}
		p.last = text
		return
	}
	line := fmt.Sprintf("%s (%v)", text, p.now().Sub(p.began).Round(time.Second))
	if n := utf8.RuneCountInString(line); n >= p.width {
		line = string([]rune(line)[:p.width-2]) + "…"
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
	p.shown = true
}

// clear takes the line away, so that something else can be printed.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// waitingFor says in words why a machine is not there yet.
func waitingFor(name string, vmi *v1alpha1.VirtualMachineInstance) string {
	if vmi == nil {
		return name + ": no instance yet"
	}
	s := &vmi.Status
	parts := []string{name + ": instance " + strings.ToLower(cmp.Or(string(s.Phase), "pending"))}
	if s.NodeName != "" {
		parts[0] += " on node " + s.NodeName
	}
	if s.Reason != "" {
		parts = append(parts, s.Reason)
	}
	if s.Message != "" {
		parts = append(parts, strings.Join(strings.Fields(s.Message), " "))
	}
	return strings.Join(parts, ": ")
}
