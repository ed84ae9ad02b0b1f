package testbed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
)

// Watch returns an error of class [ErrEmulation] as soon as a guest spins or, when resets is true, a node has reset itself, and
// nil when the context ends.
func Watch(ctx context.Context, lab *cluster.Cluster, resets bool) error {
	locked := map[string]*lockedUp{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		if resets {
			// A lab that does not answer is the tests' own affair.
			counts, err := lab.Resets(ctx)
			if err != nil {
				continue
			}
			for node, n := range counts {
				if n > 0 {
					return fmt.Errorf("%w: %s has reset itself (logs: %s)\n%s", ErrEmulation, node, lab.LogDir(), died(lab.LogDir(), node))
				}
			}
		}
		for _, node := range lab.Nodes() {
			b, err := lastBytes(filepath.Join(lab.LogDir(), node+"-cpu.log"), 64<<10)
			if err != nil {
				continue // not there yet
			}
			if rip := spins(b); rip != "" {
				return fmt.Errorf("%w: a guest in %s spins at %s, an address of the node's own kernel (logs: %s); how it began:\n%s",
					ErrEmulation, node, rip, lab.LogDir(), began(filepath.Join(lab.LogDir(), node+"-cpu.log"), rip))
			}
			if locked[node] == nil {
				locked[node] = &lockedUp{}
			}
			if rip := locked[node].look(b); rip != "" {
				return fmt.Errorf("%w: a guest in %s has done nothing for %d s but wait at %s in its kernel (logs: %s); how it began:\n%s",
					ErrEmulation, node, lockedUpLooks, rip, lab.LogDir(), began(filepath.Join(lab.LogDir(), node+"-cpu.log"), rip))
			}
		}
	}
}

// lostExit is a guest that got its node's kernel's registers: each entry injects an exception, whose delivery ends in a nested
// page fault at the same instruction of the kernel.
var lostExit = regexp.MustCompile(`EXEPTvmexit\(00000400, [0-9a-f]+, [0-9a-f]+, (ffffffff[0-9a-f]{8})\)!`)

// spins finds such a guest in the end of a node's CPU log: nothing else is at one address so often.
func spins(log []byte) (rip string) {
	const often = 200
	seen := map[string]int{}
	for _, m := range lostExit.FindAllSubmatch(log, -1) {
		at := string(m[1])
		if seen[at]++; seen[at] >= often {
			return at
		}
	}
	return ""
}

// timerExit is a guest whose kernel was interrupted for the node's own clock.
var timerExit = regexp.MustCompile(`vmexit\(00000060, [0-9a-f]+, [0-9a-f]+, (ffffffff[0-9a-f]{8})\)!`)

const lockedUpLooks = 30

// lockedUp finds a guest whose kernel waits for a lock that nobody will release: look after look, a second each, it is
// interrupted at one address and at no other. Seen with a guest that got its timer's interrupt in the midst of reading PCI
// configuration space; a kernel that is well waits at one address for milliseconds.
type lockedUp struct {
	rip   string
	looks int
}

// look takes the end of the log; it gives the address once that has been the same for long.
func (l *lockedUp) look(log []byte) (rip string) {
	const often = 20
	seen := map[string]int{}
	for _, m := range timerExit.FindAllSubmatch(log, -1) {
		seen[string(m[1])]++
	}
	if seen[l.rip] >= often {
		if l.looks++; l.looks >= lockedUpLooks {
			return l.rip
		}
		return ""
	}
	*l = lockedUp{}
	for at, n := range seen {
		if n >= often && n > seen[l.rip] {
			*l = lockedUp{rip: at, looks: 1}
		}
	}
	return ""
}

// began are the entries and exits of guests before and after the first one at an address.
func began(path, rip string) string {
	b, err := lastBytes(path, 16<<20)
	if err != nil {
		return err.Error()
	}
	i := bytes.Index(b, []byte(rip))
	if i < 0 {
		return "it is not in the log any more"
	}
	before, after := bytes.Split(b[:i], []byte("\n")), bytes.SplitN(b[i:], []byte("\n"), 5)
	return string(bytes.Join(before[max(0, len(before)-25):], []byte("\n"))) + string(bytes.Join(after[:min(len(after), 4)], []byte("\n")))
}

// crash is how the kernel begins to tell of its end.
var crash = regexp.MustCompile(`BUG:|Oops:|general protection|double fault|invalid opcode|unable to handle|stack segment|machine check`)

// lastWords is the end of a console: from the last report of a crash on, if there is one.
func lastWords(console string) string {
	lines := strings.Split(strings.TrimSpace(console), "\n")
	from := max(0, len(lines)-15)
	for i := max(0, len(lines)-150); i < from; i++ {
		if crash.MatchString(lines[i]) {
			from = i
		}
	}
	return strings.Join(lines[from:min(len(lines), from+60)], "\n")
}

// died says what is known about the end of a node: the state of the processor that QEMU gave up with a triple fault, without
// the floating-point registers, or else, when the node's kernel restarted it, the end of the node's console.
func died(logs, node string) string {
	b, err := lastBytes(filepath.Join(logs, node+"-cpu.log"), 16<<20)
	if err != nil {
		return err.Error()
	}
	const words = "Triple fault"
	i := strings.LastIndex(string(b), words)
	if i < 0 {
		console, err := os.ReadFile(filepath.Join(logs, node+"-console.log"))
		if err != nil {
			return err.Error()
		}
		return "no triple fault: its kernel restarted it; the end of its console:\n" + lastWords(string(console))
	}
	var out []string
	for line := range strings.Lines(string(b[i:])) {
		if strings.HasPrefix(line, "FCW=") || len(out) > 40 {
			break
		}
		out = append(out, strings.TrimRight(line, "\n"))
	}
	return strings.Join(out, "\n")
}

// lastBytes reads the end of a file that may be very long.
func lastBytes(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(0, info.Size()-n), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
