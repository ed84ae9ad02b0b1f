package vitals

import (
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/topology"
)

func link(width, most int) topology.Link { return topology.Link{Width: width, MaxWidth: most} }

func TestLook(t *testing.T) {
	flr := []string{"flr", "bus"}
	type step struct {
		signs   Signs
		says    string // part of the fault; empty for none
		cleaned bool   // before the look
	}
	for name, steps := range map[string][]step{
		"a slot with fewer lanes":  {{signs: Signs{Link: link(8, 16)}}, {signs: Signs{Link: link(8, 16)}}},
		"lanes lost and back":      {{signs: Signs{Link: link(16, 16)}}, {signs: Signs{Link: link(4, 16)}, says: "4 of the 16 lanes"}, {signs: Signs{Link: link(16, 16)}}},
		"link down":                {{signs: Signs{Link: link(16, 16)}}, {signs: Signs{Link: link(0, 16)}, says: "is down"}},
		"never up":                 {{signs: Signs{Link: link(0, 16)}}},
		"deep sleep":               {{signs: Signs{Link: link(16, 16)}}, {signs: Signs{Link: link(63, 16)}}},
		"no link (VF)":             {{signs: Signs{}}, {signs: Signs{}}},
		"no reset at all":          {{signs: Signs{}}},
		"reset lost":               {{signs: Signs{Resets: flr}}, {signs: Signs{}, says: "flr, bus"}, {signs: Signs{Resets: flr}}},
		"errors before our time":   {{signs: Signs{Fatal: 7, Counted: true}}, {signs: Signs{Fatal: 7, Counted: true}}},
		"errors in our time":       {{signs: Signs{Counted: true}}, {signs: Signs{Fatal: 2, Counted: true}, says: "2 fatal errors"}, {signs: Signs{Fatal: 2, Counted: true}, says: "2 fatal"}},
		"errors, and then cleaned": {{signs: Signs{Counted: true}}, {signs: Signs{Fatal: 2, Counted: true}, says: "2 fatal"}, {signs: Signs{Fatal: 2, Counted: true}, cleaned: true}, {signs: Signs{Fatal: 3, Counted: true}, says: "1 fatal"}},
		"counters came anew":       {{signs: Signs{Fatal: 9, Counted: true}}, {signs: Signs{Fatal: 0, Counted: true}}, {signs: Signs{Fatal: 1, Counted: true}, says: "1 fatal"}},
		"counters went away":       {{signs: Signs{Counted: true}}, {signs: Signs{Fatal: 2, Counted: true}, says: "2 fatal"}, {signs: Signs{}}},
	} {
		t.Run(name, func(t *testing.T) {
			var w Watch
			a, other := topology.Address{Bus: 1}, topology.Address{Bus: 2}
			for i, s := range steps {
				if s.cleaned {
					w.Cleaned(a)
				}
				got := w.Look(a, s.signs)
				if (got == "") != (s.says == "") || !strings.Contains(got, s.says) {
					t.Errorf("step %d: %q, want %q", i, got, s.says)
				}
				if got := w.Look(other, Signs{Link: link(1, 1)}); got != "" {
					t.Errorf("step %d: another function: %q", i, got)
				}
			}
			w.Keep(func(topology.Address) bool { return false })
			if len(w.by) != 0 {
				t.Errorf("%d functions are remembered", len(w.by))
			}
		})
	}
}
