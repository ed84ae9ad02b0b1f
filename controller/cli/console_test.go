package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A script's input has ended long before the guest has answered.
func TestAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		speaks time.Duration // how long the guest goes on, a word a second
		ends   time.Duration
	}{
		"quiet":      {ends: answerQuiet},
		"a while":    {speaks: 5 * time.Second, ends: 5*time.Second + answerQuiet},
		"for ever":   {speaks: time.Hour, ends: answerLimit},
		"one answer": {speaks: time.Second, ends: time.Second + answerQuiet},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				a := &answered{in: strings.NewReader("ls\n"), out: &out}
				stop := make(chan struct{})
				spoken := make(chan struct{})
				go func() {
					defer close(spoken)
					end := time.Now().Add(c.speaks)
					for time.Now().Before(end) {
						select {
						case <-stop:
							return
						case <-time.After(time.Second):
						}
						_, _ = io.WriteString(a, "word\n") // to a buffer
					}
				}()
				start := time.Now()
				in, err := io.ReadAll(a)
				if err != nil || string(in) != "ls\n" {
					t.Errorf("input %q, %v", in, err)
				}
				if took := time.Since(start); took < c.ends || took > c.ends+time.Second {
					t.Errorf("it ended after %s, want %s", took, c.ends)
				}
				close(stop)
				<-spoken
			})
		})
	}
}

func TestUntilEscape(t *testing.T) {
	stopped := false
	u := &untilEscape{r: strings.NewReader("abc\x1dd"), stop: func() { stopped = true }}
	got, err := io.ReadAll(u)
	if err != nil || string(got) != "abc" || !stopped || !u.ended.Load() {
		t.Errorf("read %q, %v; stopped %t", got, err, stopped)
	}
	u = &untilEscape{r: strings.NewReader("abc"), stop: func() {}}
	if got, err := io.ReadAll(u); err != nil || string(got) != "abc" || u.ended.Load() {
		t.Errorf("without the key: %q, %v", got, err)
	}
}
