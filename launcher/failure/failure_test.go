package failure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

func TestOutcome(t *testing.T) {
	cause := errors.New("cause")
	for name, tc := range map[string]struct {
		err  error
		want launcherrpcv1.Outcome
	}{
		"nil is a guest that shut down": {nil, launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonGuestShutdown, Message: "the guest shut down"}},
		"bad spec names the field":      {Field("spec.x", cause), launcherrpcv1.Outcome{ExitCode: 64, Reason: launcherrpcv1.ReasonBadSpec, Message: "cause", Field: "spec.x"}},
		"device names the address": {
			fmt.Errorf("outer: %w", Address(launcherrpcv1.ReasonDeviceNotViable, "0000:01:00.0", cause)),
			launcherrpcv1.Outcome{ExitCode: 65, Reason: launcherrpcv1.ReasonDeviceNotViable, Message: "outer: cause", Address: "0000:01:00.0"},
		},
		"assignment":           {New(launcherrpcv1.ReasonAssignment, cause), launcherrpcv1.Outcome{ExitCode: 65, Reason: launcherrpcv1.ReasonAssignment, Message: "cause"}},
		"memory lock":          {New(launcherrpcv1.ReasonMemoryLock, cause), launcherrpcv1.Outcome{ExitCode: 66, Reason: launcherrpcv1.ReasonMemoryLock, Message: "cause"}},
		"QEMU did not start":   {New(launcherrpcv1.ReasonQEMUDidNotStart, cause), launcherrpcv1.Outcome{ExitCode: 67, Reason: launcherrpcv1.ReasonQEMUDidNotStart, Message: "cause"}},
		"host cannot hold":     {New(launcherrpcv1.ReasonHostCannotHold, cause), launcherrpcv1.Outcome{ExitCode: 67, Reason: launcherrpcv1.ReasonHostCannotHold, Message: "cause"}},
		"guest panicked":       {Newf(launcherrpcv1.ReasonGuestPanicked, "p"), launcherrpcv1.Outcome{ExitCode: 68, Reason: launcherrpcv1.ReasonGuestPanicked, Message: "p"}},
		"QEMU died":            {New(launcherrpcv1.ReasonQEMUDied, cause), launcherrpcv1.Outcome{ExitCode: 69, Reason: launcherrpcv1.ReasonQEMUDied, Message: "cause"}},
		"QEMU out of memory":   {New(launcherrpcv1.ReasonQEMUOutOfMemory, cause), launcherrpcv1.Outcome{ExitCode: 69, Reason: launcherrpcv1.ReasonQEMUOutOfMemory, Message: "cause"}},
		"forced off":           {New(launcherrpcv1.ReasonForcedOff, cause), launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonForcedOff, Message: "cause"}},
		"stopped":              {fmt.Errorf("x: %w", context.Canceled), launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonStopped, Message: "asked to stop before the guest had started"}},
		"no class":             {cause, launcherrpcv1.Outcome{ExitCode: 70, Reason: launcherrpcv1.ReasonLauncherInternal, Message: "cause"}},
		"nil stays nil in New": {New(launcherrpcv1.ReasonBadSpec, nil), launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonGuestShutdown, Message: "the guest shut down"}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, Outcome(tc.err)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestTerminationMessage(t *testing.T) {
	o := launcherrpcv1.Outcome{
		ExitCode: 67, Reason: launcherrpcv1.ReasonQEMUDidNotStart, Field: "spec.domain", Address: "0000:01:00.0",
		Seconds: map[string]float64{"qemu": 1.5},
	}
	for name, message := range map[string]string{
		"short":   "QEMU said no",
		"long":    "begin " + strings.Repeat("x", 10_000) + " end",
		"escapes": strings.Repeat("\x01", 5000),
		"wide":    strings.Repeat("日本", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.Message = message
			b, err := TerminationMessage(o, launcherrpcv1.TerminationLogLimit)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > launcherrpcv1.TerminationLogLimit {
				t.Errorf("%d bytes", len(b))
			}
			got, ok := launcherrpcv1.ParseOutcome(b)
			if !ok || got.ExitCode != 67 || got.Field != o.Field || got.Seconds["qemu"] != 1.5 {
				t.Errorf("parsed: %+v, %t", got, ok)
			}
			if name == "long" && (!strings.HasPrefix(got.Message, "begin ") || !strings.HasSuffix(got.Message, " end")) {
				t.Errorf("beginning or end is lost: %.40q…%q", got.Message, got.Message[len(got.Message)-20:])
			}
			if name == "short" && got.Message != message {
				t.Errorf("message %q", got.Message)
			}
		})
	}
	if _, err := TerminationMessage(o, 10); err == nil {
		t.Error("a limit of 10 bytes is met")
	}
}

func TestParseOutcomeOfOthers(t *testing.T) {
	for _, text := range []string{"", "Error", "{}", `"x"`, `{"exitCode":1}`} {
		if o, ok := launcherrpcv1.ParseOutcome([]byte(text)); ok {
			t.Errorf("%q is taken for an outcome: %+v", text, o)
		}
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("hello", 3)
	f.Add("日本語日本語日本語日本語", 20)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > 1<<16 {
			return
		}
		got := Shorten(s, limit)
		if len(got) > limit && len(got) != len(s) || len(s) <= limit && got != s {
			t.Errorf("Shorten(%q, %d) = %q", s, limit, got)
		}
		if len(got) > limit {
			t.Errorf("Shorten(%q, %d) has %d bytes", s, limit, len(got))
		}
		if utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("Shorten(%q, %d) cuts a rune: %q", s, limit, got)
		}
	})
}

func FuzzTerminationMessage(f *testing.F) {
	f.Add("message", "field")
	f.Fuzz(func(t *testing.T, message, field string) {
		b, err := TerminationMessage(launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonBadSpec, Message: message, Field: field}, 512)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 512 || !json.Valid(b) {
			t.Errorf("%d bytes: %q", len(b), b)
		}
	})
}
