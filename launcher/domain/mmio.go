package domain

import (
	"math/bits"
	"slices"

	"github.com/kubevfio/kubevfio/topology"
)

const (
	gib = 1 << 30
	// defaultHole64 is QEMU's pci-hole64-size of q35.
	defaultHole64 = 32 * gib
	// emulatedMMIO is set aside for emulated devices' 64-bit BARs.
	emulatedMMIO = gib
	// lowMMIO is what q35 has below 4 GiB for BARs that must lie there: from
	// 0xc0000000 at most to the I/O APIC, less the configuration space.
	lowMMIO = 960 << 20
	// portLow is what firmware takes below 4 GiB for each bridge.
	portLow = 2 << 20
	// amdHole is where AMD's reserved range below 1 TiB begins: QEMU moves
	// memory above it, and the window with it.
	amdHole = 1012 * gib
	tib     = 1 << 40
)

// window is the 64-bit MMIO window and how it came about; sizes in bytes.
type window struct {
	// need is the sum over the ports of the prefetchable 64-bit BARs, each
	// aligned as hardware wants it; low the sum of what must lie below 4 GiB.
	need, low uint64
	// size is the window, a power of two; base and end the addresses with the
	// worst placement that firmware may choose.
	size, base, end uint64
	// known is false when the host did not tell the BARs of a device.
	known bool
}

// portNeed is what one port must forward.
func portNeed(fs []*topology.Function) (high, low uint64, known bool) {
	var big uint64
	known = true
	for _, f := range fs {
		if len(f.BARs) == 0 {
			known = false
		}
		for _, b := range f.BARs {
			switch {
			case b.IO:
			case b.Is64 && b.Prefetchable:
				s := pow2(b.Bytes)
				high += s
				big = max(big, s)
			default:
				low += pow2(b.Bytes)
			}
		}
		low += pow2(f.ROMBytes)
	}
	if big > 0 {
		high = alignUp(high, big)
	}
	return high, low, known
}

// mmioWindow sizes the window for the slots, given the guest's memory.
func mmioWindow(groups []*slotGroup, memory uint64) window {
	w := window{known: true}
	var needs []uint64
	for _, g := range groups {
		high, low, known := portNeed(g.funcs)
		w.known = w.known && known
		w.low += max(portLow, low)
		if high > 0 {
			needs = append(needs, high)
		}
	}
	slices.Sort(needs)
	for _, n := range slices.Backward(needs) {
		w.need += n
	}
	if w.need > 0 {
		w.need += emulatedMMIO
	}
	w.size = max(defaultHole64, pow2(w.need))
	// Memory beyond the first 2 GiB starts at 4 GiB; the window follows, aligned
	// to its size as OVMF does it.
	top := uint64(4*gib) + memory - min(memory, 2*gib)
	w.base = alignUp(top, w.size)
	w.end = w.base + w.size
	if w.end > amdHole && top < tib+memory {
		w.base = alignUp(tib+memory, w.size)
		w.end = w.base + w.size
	}
	return w
}

// check refuses a window that the CPU cannot address. bits is the width, 0 when
// unknown.
func (w *window) check(physBits int, memory uint64) error {
	if w.low > lowMMIO {
		return hostErrorf("spec.domain.devices", "the devices have %d MiB of BARs that must lie below 4 GiB, a q35 guest has %d MiB there", w.low>>20, lowMMIO>>20)
	}
	if physBits == 0 || w.need == 0 {
		return nil
	}
	// QEMU itself refuses a window of the default size on narrow CPUs only when
	// memory and window exceed the width: the alignment is firmware's wish.
	end := w.end
	if w.size == defaultHole64 {
		end = uint64(4*gib) + memory + w.size
	}
	if physBits < 63 && end > 1<<physBits {
		return hostErrorf("spec.domain.devices", "the devices' BARs need %d GiB of 64-bit address space, a window of %d GiB that ends at %d GiB above %d MiB of memory; the CPU's %d address bits reach %d GiB",
			(w.need+gib-1)/gib, w.size/gib, end/gib, memory>>20, physBits, uint64(1)<<physBits/gib)
	}
	return nil
}

// ovmfMiB is the value of OVMF's X-PciMmio64Mb, 0 when its own choice, an eighth
// of the address space, is large enough.
func (w *window) ovmfMiB(physBits int) uint64 {
	if physBits > 0 && w.size <= uint64(1)<<physBits/8 {
		return 0
	}
	if w.size <= defaultHole64 {
		return 0
	}
	return w.size >> 20
}

func alignUp(v, to uint64) uint64 { return (v + to - 1) / to * to }

// pow2 is the least power of two that is not below v; 0 for 0.
func pow2(v uint64) uint64 {
	if v <= 1 {
		return v
	}
	return 1 << bits.Len64(v-1)
}
