package capcache

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Identity is what an entry depends on.
type Identity struct {
	// Emulator is QEMU's path; Size and ChangedNS (inode change time in
	// nanoseconds since 1970) are of the file in this image's file system: it
	// changes with every unpacking of an image.
	Emulator  string
	Size      int64
	ChangedNS int64
	// Kernel is release and version as uname tells them.
	Kernel string
	// CPU is the model of the first CPU with stepping and microcode.
	CPU string
	// Driver is how libvirt runs: its files differ.
	Driver string
}

// Key is the name of an entry: 32 hexadecimal digits.
func (i Identity) Key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1\x00%s\x00%d\x00%d\x00%s\x00%s\x00%s", i.Emulator, i.Size, i.ChangedNS, i.Kernel, i.CPU, i.Driver))
	return hex.EncodeToString(sum[:16])
}

// Identify reads the identity of this host and image. emulator is QEMU's path,
// cpuinfo the content of /proc/cpuinfo, driver the way in which libvirt runs.
func Identify(emulator, driver string, cpuinfo io.Reader) (Identity, error) {
	path, err := filepath.EvalSymlinks(emulator)
	if err != nil {
		return Identity{}, fmt.Errorf("find QEMU: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Identity{}, fmt.Errorf("look at %s: %w", path, err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Identity{}, fmt.Errorf("ask for the kernel's name: %w", err)
	}
	cpu, err := firstCPU(cpuinfo)
	if err != nil {
		return Identity{}, err
	}
	return Identity{
		Emulator: path, Size: st.Size, ChangedNS: st.Ctim.Nano(), CPU: cpu, Driver: driver,
		Kernel: unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:]),
	}, nil
}

// firstCPU gives what identifies the first CPU of a /proc/cpuinfo, up to 64 KiB
// of it. Without any such line the error says so.
func firstCPU(cpuinfo io.Reader) (string, error) {
	want := []string{"vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "Features", "CPU implementer", "CPU part", "CPU revision"}
	var parts []string
	s := bufio.NewScanner(io.LimitReader(cpuinfo, 64<<10))
	s.Buffer(make([]byte, 8<<10), 64<<10)
	for s.Scan() {
		if s.Text() == "" && len(parts) > 0 {
			break
		}
		key, value, ok := strings.Cut(s.Text(), ":")
		if key = strings.TrimSpace(key); ok && slices.Contains(want, key) {
			parts = append(parts, key+"="+strings.TrimSpace(value))
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("read the CPU's model: %w", err)
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("read the CPU's model: /proc/cpuinfo names none")
	}
	return strings.Join(parts, ";"), nil
}
