package v1alpha1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// ErrAssignment is the class of errors about a malformed assignment.
var ErrAssignment = errors.New("invalid assignment")

// AssignmentVersion is the only version of the format so far.
const AssignmentVersion = "v1"

// Assignment is the scheduler's decision for one pod: exactly these units for
// these containers on this node. It is valid only for the pod with UID PodUID
// on node Node; a copy on another pod means nothing.
//
// +kubebuilder:object:generate=false
type Assignment struct {
	// Version is AssignmentVersion.
	Version string `json:"version"`
	PodUID  string `json:"podUID"`
	Node    string `json:"node"`
	// Containers maps container name -> resource name -> unit IDs (leader
	// addresses), in the order in which the guest shall see them.
	Containers map[string]map[string][]topology.Address `json:"containers"`
	// NUMANodes are the NUMA nodes that the choice touches, sorted; units of
	// unknown node are not in it.
	NUMANodes []int `json:"numaNodes,omitempty"`
	// Alignment is the level that the choice reached: switch, root, numa,
	// socket or other. Empty for a single unit.
	Alignment string `json:"alignment,omitempty"`
}

// Encode is the annotation's value: compact JSON, the same for equal values.
func (a *Assignment) Encode() (string, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return "", fmt.Errorf("encode assignment: %w", err)
	}
	return string(b), nil
}

// DecodeAssignment reads an annotation's value strictly: unknown fields, a
// foreign version, trailing text and a unit named twice are errors of class
// [ErrAssignment].
func DecodeAssignment(s string) (*Assignment, error) {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	var a Assignment
	if err := dec.Decode(&a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAssignment, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: text after the JSON object", ErrAssignment)
	}
	switch {
	case a.Version != AssignmentVersion:
		return nil, fmt.Errorf("%w: version %q, this build reads %q", ErrAssignment, a.Version, AssignmentVersion)
	case a.PodUID == "":
		return nil, fmt.Errorf("%w: podUID is empty", ErrAssignment)
	case a.Node == "":
		return nil, fmt.Errorf("%w: node is empty", ErrAssignment)
	}
	seen := map[topology.Address]bool{}
	for c, resources := range a.Containers {
		for r, units := range resources {
			for _, u := range units {
				if seen[u] {
					return nil, fmt.Errorf("%w: %s named twice (container %s, resource %s)", ErrAssignment, u, c, r)
				}
				seen[u] = true
			}
		}
	}
	return &a, nil
}

// EnvName is the <NAME> part of the device environment for a resource name:
// "kubevfio.io/igb-vf" gives "KUBEVFIO_IO_IGB_VF".
func EnvName(resource string) string {
	var b bytes.Buffer
	for _, c := range []byte(strings.ToUpper(resource)) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			c = '_'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// ErrAlignment is the class of errors about a malformed alignment wish.
var ErrAlignment = errors.New("invalid alignment")

// Alignment is a parsed wish: all units of the pod within one Level.
//
// +kubebuilder:object:generate=false
type Alignment struct {
	Required bool
	Level    topology.Distance
}

// ParseAlignment reads "required:LEVEL" or "preferred:LEVEL" with LEVEL one of
// switch, root, numa, socket. Errors are of class [ErrAlignment].
func ParseAlignment(s string) (Alignment, error) {
	how, level, ok := strings.Cut(s, ":")
	var a Alignment
	if !ok || (how != "required" && how != "preferred") {
		return a, fmt.Errorf("%w: %q: want required:LEVEL or preferred:LEVEL, LEVEL one of switch, root, numa, socket", ErrAlignment, s)
	}
	a.Required = how == "required"
	for d := topology.SameSwitch; d < topology.Other; d++ {
		if d.String() == level {
			a.Level = d
			return a, nil
		}
	}
	return a, fmt.Errorf("%w: %q: level %q is none of switch, root, numa, socket", ErrAlignment, s, level)
}

// String is the annotation's value.
func (a Alignment) String() string {
	if a.Required {
		return "required:" + a.Level.String()
	}
	return "preferred:" + a.Level.String()
}
