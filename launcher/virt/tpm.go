package virt

import (
	"fmt"
	"os"
	"path/filepath"
)

// prepareTPM writes the configuration with which swtpm_setup(8), that libvirt runs
// for a guest's new TPM, makes the certificates of its keys: the machine's own
// configuration (swtpm_setup.conf(5)) keeps the authority in a folder that only root
// can write to. The authority vouches for nothing outside of the guest and is not
// kept.
func prepareTPM(root string) error {
	config, ca := filepath.Join(root, "config"), filepath.Join(root, "data", "swtpm-localca")
	if err := os.MkdirAll(ca, 0o700); err != nil {
		return fmt.Errorf("prepare the TPM's folders: %w", err)
	}
	in := func(name string) string { return filepath.Join(config, name) }
	for file, text := range map[string]string{
		in("swtpm_setup.conf"): "create_certs_tool = /usr/bin/swtpm_localca\n" +
			"create_certs_tool_config = " + in("swtpm-localca.conf") + "\n" +
			"create_certs_tool_options = " + in("swtpm-localca.options") + "\n" +
			"active_pcr_banks = sha256\n",
		in("swtpm-localca.conf"): "statedir = " + ca + "\n" +
			"signingkey = " + filepath.Join(ca, "signkey.pem") + "\n" +
			"issuercert = " + filepath.Join(ca, "issuercert.pem") + "\n" +
			"certserial = " + filepath.Join(ca, "certserial") + "\n",
		in("swtpm-localca.options"): "--platform-manufacturer KubeVFIO\n--platform-version 1\n--platform-model QEMU\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return fmt.Errorf("prepare the TPM's configuration: %w", err)
		}
	}
	return nil
}

// TPMLog is where swtpm and swtpm_setup write what they do for a domain.
func TPMLog(root string, mode Mode, domain string) string {
	if mode == Daemon {
		return filepath.Join(root, "cachehome", "libvirt", "qemu", "log", "swtpm", domain+"-swtpm.log")
	}
	return filepath.Join(root, "log", "swtpm", domain+"-swtpm.log")
}
