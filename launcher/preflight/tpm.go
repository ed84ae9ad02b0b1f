package preflight

import (
	"fmt"
	"os"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

const tpmField = "spec.domain.devices.tpm"

// TPM checks that what swtpm_setup(8) needs to make a TPM can be had: it keeps its
// temporary files in a folder that is built into it, whatever TMPDIR says.
func TPM(dir string) error {
	f, err := os.CreateTemp(dir, ".tpm-*")
	if err != nil {
		return &failure.Error{Reason: launcherrpcv1.ReasonHostCannotHold, Field: tpmField,
			Err: fmt.Errorf("%s: a TPM is made with temporary files in %s, which this container cannot write: mount an emptyDir volume there: %w", tpmField, dir, err)}
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("check %s: %w", dir, err)
	}
	return nil
}
