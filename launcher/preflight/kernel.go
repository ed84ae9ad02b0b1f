package preflight

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

const kernelField = "spec.domain.firmware.kernelBoot.container.kernelPath"

// Kernel checks the kernel that a guest with a TPM boots directly. QEMU starts an
// uncompressed one (an ELF file) by PVH, and with a TPM such a guest finds no ACPI
// tables: it comes up, with neither TPM nor any device below an expander bus.
func Kernel(spec *v1alpha1.VirtualMachineInstanceSpec) error {
	f := spec.Domain.Firmware
	if f == nil || f.KernelBoot == nil || f.KernelBoot.Container == nil || !spec.Domain.Devices.TPM.On() {
		return nil
	}
	path := f.KernelBoot.Container.KernelPath
	bad := func(err error) error {
		return &failure.Error{Reason: launcherrpcv1.ReasonBadSpec, Field: kernelField, Err: fmt.Errorf("%s: %w", kernelField, err)}
	}
	file, err := os.Open(path)
	if err != nil {
		return bad(err)
	}
	defer file.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(file, magic); err != nil {
		return bad(fmt.Errorf("read %s: %w", path, err))
	}
	if bytes.Equal(magic, []byte("\x7fELF")) {
		return bad(fmt.Errorf("%s: %w", path, errUncompressed))
	}
	return nil
}

var errUncompressed = errors.New("an uncompressed kernel finds no ACPI tables in a guest with a TPM, and so no TPM: boot the compressed one (vmlinuz)")
