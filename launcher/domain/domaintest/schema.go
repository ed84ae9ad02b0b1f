package domaintest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// validator is libvirt's own checker; it needs xmllint, which its package only
// recommends.
const validator = "virt-xml-validate"

func installed() bool {
	for _, prog := range []string{validator, "xmllint"} {
		if _, err := exec.LookPath(prog); err != nil {
			return false
		}
	}
	return true
}

// Schema checks a domain against libvirt's schema where the checker is
// installed, and says so where it is not.
func Schema(t testing.TB, xml string) {
	t.Helper()
	if !installed() {
		t.Log("virt-xml-validate is not installed (Debian: libvirt-clients, libxml2-utils): the schema is not checked")
		return
	}
	f := filepath.Join(t.TempDir(), "domain.xml")
	if err := os.WriteFile(f, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(validator, f, "domain").CombinedOutput(); err != nil {
		t.Errorf("libvirt's schema refuses the domain: %v\n%s\n%s", err, out, xml)
	}
}

// SchemaMajor is the major version of the libvirt that the installed schema is
// of, 0 when there is none.
func SchemaMajor() int {
	if !installed() {
		return 0
	}
	out, err := exec.Command(validator, "--version").Output()
	if err != nil {
		return 0
	}
	var major int
	_, version, _ := strings.Cut(string(out), "(libvirt) ")
	if _, err := fmt.Sscanf(version, "%d.", &major); err != nil {
		return 0
	}
	return major
}
