package draw

import "hash/fnv"

// Kind is what a box stands for. It is the CSS class of the box.
type Kind string

// The kinds. A Group holds the virtual functions of one physical function.
const (
	Page   Kind = "page"
	Socket Kind = "socket"
	NUMA   Kind = "numa"
	Root   Kind = "root"
	Switch Kind = "switch"
	Group  Kind = "group"
	GPU    Kind = "gpu"
	Net    Kind = "net"
	Disk   Kind = "disk"
	Other  Kind = "other"
)

// KindOfClass is the kind of a device with the given 24-bit PCI class code.
func KindOfClass(class uint32) Kind {
	switch class >> 16 {
	case 0x03, 0x12:
		return GPU
	case 0x02:
		return Net
	case 0x01:
		return Disk
	}
	return Other
}

// Device reports whether boxes of the kind are devices.
func (k Kind) Device() bool {
	switch k {
	case GPU, Net, Disk, Other:
		return true
	}
	return false
}

// State is how a device is; empty where that is not known or not asked.
type State string

// The states. They are words of a CSS class and of text.
const (
	Free       State = "free"
	Held       State = "held"
	NotReady   State = "notready"
	NotOffered State = "notoffered"
)

// Box is a thing with a title and what is in it.
type Box struct {
	Kind  Kind   `json:"kind"`
	Title string `json:"title,omitempty"`
	// Lines are details, most important first.
	Lines []string `json:"lines,omitempty"`
	// Tip is more text for who points at the box in a picture.
	Tip string `json:"tip,omitempty"`
	// State of a device, Holder who holds it, in words.
	State  State  `json:"state,omitempty"`
	Holder string `json:"holder,omitempty"`
	// Problem says why a device cannot be handed out; such a box is dashed. It may
	// be held at the same time.
	Problem string `json:"problem,omitempty"`
	// Ref names the thing for programs: a unit's address.
	Ref   string `json:"ref,omitempty"`
	Inner []*Box `json:"inner,omitempty"`
}

// Walk calls f for the box and all boxes inside, outer ones first.
func (b *Box) Walk(f func(*Box)) {
	f(b)
	for _, c := range b.Inner {
		c.Walk(f)
	}
}

// hues are colours on the wheel, in degrees, that people tell apart; red is left
// out, it means trouble.
func hues() []int { return []int{210, 35, 275, 175, 325, 95, 240, 55, 300, 150, 190, 255} }

// Hue is the colour of a holder in degrees on the wheel, the same for equal names.
func Hue(holder string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(holder)) // never fails
	list := hues()
	return list[h.Sum32()%uint32(len(list))]
}
