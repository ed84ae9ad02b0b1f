package artifacts

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRunAnswersOutputAndCause(t *testing.T) {
	out, err := command{args: []string{"sh", "-c", "echo $WORD; cat"}, env: []string{"WORD=hello"}, stdin: strings.NewReader("in")}.run(t.Context())
	if err != nil || out != "hello\nin" {
		t.Errorf("run = %q, %v", out, err)
	}
	_, err = command{args: []string{"sh", "-c", "echo why >&2; exit 3"}}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "why") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error is %v; it must have the output and the status", err)
	}
}

// TestRunEndsWithItsContext also proves for isolated commands that nothing of them stays behind.
func TestRunEndsWithItsContext(t *testing.T) {
	for name, isolated := range map[string]bool{"plain": false, "isolated": true} {
		t.Run(name, func(t *testing.T) {
			if isolated && os.Geteuid() != 0 {
				t.Skip("namespaces need root")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			// A grandchild holds the standard output: run must not wait for it for ever.
			_, err := command{args: []string{"sh", "-c", "sleep 300 & sleep 300"}, isolated: isolated}.run(ctx)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestTail(t *testing.T) {
	if got := tail("a\nb\nc\n", 2); got != "b\nc" {
		t.Errorf("tail = %q", got)
	}
	if got := tail("a", 2); got != "a" {
		t.Errorf("tail = %q", got)
	}
}
