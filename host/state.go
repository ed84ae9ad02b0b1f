package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/kubevfio/kubevfio/topology"
)

// State remembers which drivers functions had before KubeVFIO bound them. It is
// a file on the host's disk, so that the memory outlives the agent and a
// reboot. An entry holds only for the device model that it was made for: after
// cards were swapped an address means something else.
type State struct {
	path string
	mu   sync.Mutex
	m    map[topology.Address]former
}

// former is a function's driver before ours.
type former struct {
	Driver string `json:"driver"`
	Vendor uint16 `json:"vendor"`
	Device uint16 `json:"device"`
}

// stateFile is the file's form.
type stateFile struct {
	Version int                         `json:"version"`
	Former  map[topology.Address]former `json:"former"`
}

const stateVersion = 1

// OpenState reads the state file; one that is not there is empty. The folder
// must exist by the first change.
func OpenState(path string) (*State, error) {
	s := &State{path: path, m: map[topology.Address]former{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read former drivers: %w", err)
	}
	var f stateFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read former drivers: %s: %w: remove the file to forget them", path, err)
	}
	if f.Version != stateVersion {
		return nil, fmt.Errorf("read former drivers: %s has version %d, this build reads %d", path, f.Version, stateVersion)
	}
	for a, x := range f.Former {
		s.m[a] = x
	}
	return s, nil
}

// Former are the remembered drivers of the functions that the host still has.
func (s *State) Former(h *topology.Host) map[topology.Address]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[topology.Address]string, len(s.m))
	for a, x := range s.m {
		if f := h.Function(a); f != nil && f.Vendor == x.Vendor && f.Device == x.Device {
			out[a] = x.Driver
		}
	}
	return out
}

// driver is what is remembered of a function, empty when nothing is.
func (s *State) driver(f *topology.Function) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[f.Address]
	if !ok || x.Vendor != f.Vendor || x.Device != f.Device {
		return "", false
	}
	return x.Driver, true
}

// remember keeps a function's present driver, unless one is remembered.
func (s *State) remember(f *topology.Function) error {
	if _, ok := s.driver(f); ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[f.Address] = former{Driver: f.Driver, Vendor: f.Vendor, Device: f.Device}
	return s.save()
}

// forget drops what is remembered of a function.
func (s *State) forget(a topology.Address) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.m[a]; !ok {
		return nil
	}
	delete(s.m, a)
	return s.save()
}

// save replaces the file; the caller holds the lock.
func (s *State) save() error {
	b, err := json.MarshalIndent(stateFile{Version: stateVersion, Former: s.m}, "", " ")
	if err != nil {
		return fmt.Errorf("encode former drivers: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.path), ".former-*")
	if err != nil {
		return fmt.Errorf("save former drivers: %w", err)
	}
	_, err = tmp.Write(b)
	if serr := tmp.Sync(); err == nil {
		err = serr
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), s.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save former drivers: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}
