package vmspec

import (
	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Validate checks the rules between fields that the types do not hold. It
// returns the first violation in the order of the spec, of class [ErrInvalid].
func Validate(spec *v1alpha1.VirtualMachineInstanceSpec) error {
	if _, err := VCPUs(spec); err != nil {
		return err
	}
	if _, err := MemoryBytes(spec); err != nil {
		return err
	}
	if _, err := HugepageBytes(spec); err != nil {
		return err
	}
	return nil
}
