package preflight

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

func TestKernel(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"vmlinux": "\x7fELF and more", "vmlinuz": "MZ and more", "short": "MZ"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct{ kernel, tpm, want string }{
		"compressed":                {"vmlinuz", "{}", ""},
		"uncompressed":              {"vmlinux", "{}", "vmlinuz"},
		"uncompressed without TPM":  {"vmlinux", "{enabled: false}", ""},
		"not there":                 {"absent", "{}", "no such file"},
		"not there and without TPM": {"absent", "{enabled: false}", ""},
		"too short":                 {"short", "{}", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := vmspec.Decode([]byte("domain:\n  memory: {guest: 256Mi}\n  firmware: {kernelBoot: {container: {kernelPath: " +
				filepath.Join(dir, tc.kernel) + "}}}\n  devices: {tpm: " + tc.tpm + "}\n"))
			if err != nil {
				t.Fatal(err)
			}
			err = Kernel(spec)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var f *failure.Error
			if !errors.As(err, &f) || f.Reason != launcherrpcv1.ReasonBadSpec || f.Field != kernelField || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q of %s", err, tc.want, kernelField)
			}
		})
	}
}
