package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// module is a line of the manifest that the initramfs' maker writes beside the modules.
type module struct {
	name    string
	deps    []string // the first to load last
	aliases []string
}

// parseManifest reads lines "name dep,dep alias alias …".
func parseManifest(text string) []module {
	var out []module
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		m := module{name: f[0], aliases: f[2:]}
		if f[1] != "-" {
			m.deps = strings.Split(f[1], ",")
		}
		out = append(out, m)
	}
	return out
}

// wanted answers the modules that the device aliases ask for, in loading order, with what they need.
func wanted(modules []module, devices []string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, m := range modules {
		if !m.matches(devices) {
			continue
		}
		for i := len(m.deps) - 1; i >= 0; i-- {
			add(m.deps[i])
		}
		add(m.name)
	}
	return out
}

func (m module) matches(devices []string) bool {
	for _, alias := range m.aliases {
		for _, device := range devices {
			if ok, err := path.Match(alias, device); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// deviceAliases answers the modalias of every device on the buses that guests have.
func deviceAliases(sys string) []string {
	var out []string
	for _, bus := range []string{"pci", "virtio", "acpi", "platform", "scsi"} {
		files, err := filepath.Glob(filepath.Join(sys, "bus", bus, "devices/*/modalias"))
		if err != nil {
			continue
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil {
				out = append(out, strings.TrimSpace(string(b)))
			}
		}
	}
	return out
}

// always are the modules without devices that would ask for them: button events for programs.
func always() []string { return []string{"evdev"} }

// loadModules loads what the devices ask for, again where the new drivers brought up new devices (virtio, disks), and waits a
// moment for disks and network cards to appear.
func loadModules(sys, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err != nil {
		return err
	}
	modules := parseManifest(string(text))
	loaded := map[string]bool{}
	var errs []error
	load := func(name string) bool {
		if loaded[name] {
			return false
		}
		loaded[name] = true
		if err := loadModule(filepath.Join(dir, name+".ko")); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return true
	}
	for _, name := range always() {
		load(name)
	}
	for range 3 {
		news := false
		for _, name := range wanted(modules, deviceAliases(sys)) {
			news = load(name) || news
		}
		if !news {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.Join(errs...)
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
