package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// stage is how far the start had come; it is written before the step that it
// names.
type stage string

const (
	stageNone     stage = ""
	stageCreating stage = "creating" // QEMU may or may not be there; the guest has not run
	stageRunning  stage = "running"  // the guest may have run
)

// record is what a successor must know.
type record struct {
	Stage  stage  `json:"stage"`
	Domain string `json:"domain"`
	UUID   string `json:"uuid"`
	// QEMUPID is QEMU's process, 0 when not known.
	QEMUPID int `json:"qemuPID"`
	// GraceSeconds is how long the guest may take to shut down.
	GraceSeconds int64 `json:"graceSeconds"`
	// HeldPaused says that the guest is paused because somebody wants it so.
	HeldPaused bool                   `json:"heldPaused"`
	Devices    []launcherrpcv1.Device `json:"devices"`
	Timings    []launcherrpcv1.Timing `json:"timings"`
	// OOMKills is the cgroup's count of killed processes before the start.
	OOMKills uint64 `json:"oomKills"`
}

func readRecord(path string) (record, error) {
	var r record
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read the record of the earlier supervisor: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read the record of the earlier supervisor: %w", err)
	}
	return r, nil
}

// write replaces the record at once or not at all.
func (r record) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return nil
}
