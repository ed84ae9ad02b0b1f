package artifacts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// errKernelFormat means that a kernel is not what the lab knows how to unpack.
var errKernelFormat = errors.New("kernel of an unknown format")

// Fields of the setup header of an x86 kernel (kernel documentation: arch/x86/boot.rst).
const (
	bootSetupSects    = 0x1f1
	bootMagic         = 0x202
	bootPayloadOffset = 0x248
	bootPayloadLength = 0x24c
	bootHeaderEnd     = 0x250
)

// unpackKernel answers the ELF kernel inside a bzImage. QEMU boots it directly (by its PVH entry), so that no machine has to
// decompress it: under emulation that is a third of a small guest's whole boot.
func unpackKernel(bzImage []byte) ([]byte, error) {
	if len(bzImage) < bootHeaderEnd || string(bzImage[bootMagic:bootMagic+4]) != "HdrS" {
		return nil, fmt.Errorf("%w: it has no setup header", errKernelFormat)
	}
	sectors := uint64(bzImage[bootSetupSects])
	if sectors == 0 {
		sectors = 4 // for the oldest loaders
	}
	start := (sectors+1)*512 + uint64(binary.LittleEndian.Uint32(bzImage[bootPayloadOffset:]))
	end := start + uint64(binary.LittleEndian.Uint32(bzImage[bootPayloadLength:]))
	// The compressed data are followed by the size of the outcome.
	if end > uint64(len(bzImage)) || end < start+8 {
		return nil, fmt.Errorf("%w: its payload lies outside of it", errKernelFormat)
	}
	payload, size := bzImage[start:end-4], binary.LittleEndian.Uint32(bzImage[end-4:end])
	if !bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return nil, fmt.Errorf("%w: its payload is not compressed by zstd", errKernelFormat)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return nil, fmt.Errorf("unpack a kernel: %w", err)
	}
	defer dec.Close()
	kernel, err := dec.DecodeAll(payload, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack a kernel: %w", err)
	}
	if uint64(len(kernel)) != uint64(size) || !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%w: its payload is not the ELF file that it says", errKernelFormat)
	}
	return kernel, nil
}
