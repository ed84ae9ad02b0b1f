package pid1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// Names in the run folder by which PID 1 and the supervisor talk.
const (
	// outcomeFile is the supervisor's last word.
	outcomeFile = "outcome.json"
	// exitsFile tells how processes that are not the supervisor ended, one JSON
	// object per line.
	exitsFile = "exits.jsonl"
)

// maxExits bounds the exits file; passt and friends may come and go.
const maxExits = 256 << 10

// Exit is how a child ended.
type Exit struct {
	PID int `json:"pid"`
	// Name is the kernel's name of the process, at most 15 bytes.
	Name string `json:"name"`
	// Code is the exit code, or -1 when a signal ended it.
	Code int `json:"code"`
	// Signal is the number of the signal that ended it, or 0.
	Signal int       `json:"signal,omitempty"`
	Time   time.Time `json:"time"`
}

// String says it in words.
func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("%s (pid %d) was ended by signal %d", e.Name, e.PID, e.Signal)
	}
	return fmt.Sprintf("%s (pid %d) ended with exit code %d", e.Name, e.PID, e.Code)
}

// WriteOutcome leaves the supervisor's last word for PID 1, at once or not at
// all.
func WriteOutcome(runDir string, o launcherrpcv1.Outcome) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("write the outcome: %w", err)
	}
	path := filepath.Join(runDir, outcomeFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write the outcome: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the outcome: %w", err)
	}
	return nil
}

// readOutcome gives the last word; ok is false when there is none.
func readOutcome(runDir string) (o launcherrpcv1.Outcome, ok bool) {
	b, err := os.ReadFile(filepath.Join(runDir, outcomeFile))
	if err != nil {
		return o, false
	}
	return launcherrpcv1.ParseOutcome(b)
}

// FindExit gives the latest exit of a process by its pid; ok is false when PID 1
// has not reaped it.
func FindExit(runDir string, pid int) (e Exit, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(runDir, exitsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, fmt.Errorf("read how processes ended: %w", err)
	}
	for line := range bytes.Lines(b) {
		var x Exit
		if json.Unmarshal(line, &x) == nil && x.PID == pid {
			e, ok = x, true
		}
	}
	return e, ok, nil
}

func appendExit(runDir string, e Exit) error {
	path := filepath.Join(runDir, exitsFile)
	if st, err := os.Stat(path); err == nil && st.Size() > maxExits {
		if err := os.Truncate(path, 0); err != nil {
			return fmt.Errorf("note how a process ended: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note how a process ended: %w", err)
	}
	b, err := json.Marshal(e)
	if err == nil {
		_, err = f.Write(append(b, '\n'))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("note how a process ended: %w", err)
	}
	return nil
}
