package artifacts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ErrPreconditions means that this machine or user cannot build the lab; the message says what is missing.
var ErrPreconditions = errors.New("cannot build the lab here")

// hostTools are the programs that a build runs, with the Debian package that has each.
func hostTools() map[string]string {
	return map[string]string{
		"mmdebstrap": "mmdebstrap",
		"mke2fs":     "e2fsprogs",
		"gcc":        "gcc",
		"ip":         "iproute2",
		"tar":        "tar",
		"xz":         "xz-utils",
		"unshare":    "util-linux",
		"cp":         "coreutils",
	}
}

// hostFiles are files that a build needs, with their packages: keys of the Debian archive, headers for cgo.
func hostFiles() map[string]string {
	return map[string]string{
		"/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
		"/usr/include/stdlib.h":                          "libc6-dev",
		"/etc/ssl/certs/ca-certificates.crt":             "ca-certificates",
	}
}

// isDebian tells from the text of os-release whether the system is Debian or made from it.
func isDebian(osRelease string) bool {
	for _, line := range strings.Split(osRelease, "\n") {
		key, value, _ := strings.Cut(line, "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		for _, id := range strings.Fields(strings.Trim(value, `"'`)) {
			if id == "debian" {
				return true
			}
		}
	}
	return false
}

// preconditions checks the machine and installs the Debian packages that are missing.
func (b *builder) preconditions(ctx context.Context) (changed bool, err error) {
	if os.Geteuid() != 0 {
		return false, fmt.Errorf("%w: it makes file systems with foreign owners and needs root; try sudo", ErrPreconditions)
	}
	text, err := os.ReadFile("/etc/os-release")
	if err != nil || !isDebian(string(text)) {
		return false, fmt.Errorf("%w: it needs Debian or a system made from it (see /etc/os-release)", ErrPreconditions)
	}
	if _, err := exec.LookPath("go"); err != nil {
		return false, fmt.Errorf("%w: there is no go in PATH", ErrPreconditions)
	}
	var missing []string
	for tool, pkg := range hostTools() {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, pkg)
		}
	}
	for file, pkg := range hostFiles() {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return false, nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return false, fmt.Errorf("%w: it needs the packages %s and there is no apt-get", ErrPreconditions, strings.Join(missing, " "))
	}
	b.progress("artifacts: installing Debian packages on this machine: %s", strings.Join(missing, " "))
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	install := command{args: append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...), env: env}
	if _, err := install.run(ctx); err == nil {
		return true, nil
	}
	if _, err := (command{args: []string{"apt-get", "update"}, env: env}).run(ctx); err != nil {
		return false, fmt.Errorf("%w: %w", ErrPreconditions, err)
	}
	if _, err := install.run(ctx); err != nil {
		return false, fmt.Errorf("%w: %w", ErrPreconditions, err)
	}
	return true, nil
}
