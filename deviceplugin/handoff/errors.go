package handoff

import (
	"errors"
	"fmt"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Classes of refusals. The text of each ends in a pod's status.
var (
	// ErrNoPod: no pod on this node wants what kubelet asks for.
	ErrNoPod = errors.New("no pod under admission matches")
	// ErrAmbiguous: several pods might be meant.
	ErrAmbiguous = errors.New("several pods might be under admission")
	// ErrMismatch: kubelet's choice is not the scheduler's assignment.
	ErrMismatch = errors.New("kubelet's choice is not the scheduler's assignment")
	// ErrReserved: the units are assigned to, or held by, other pods.
	ErrReserved = errors.New("units belong to other pods")
	// ErrUnit: not a unit of this resource, or named twice.
	ErrUnit = errors.New("no such unit")
	// ErrUnsure: kubelet cannot be asked who holds the units.
	ErrUnsure = errors.New("the owner of the units is not certain")
)

var (
	errForeignUID  = fmt.Errorf("%w: it names another pod's UID", v1alpha1.ErrAssignment)
	errForeignNode = fmt.Errorf("%w: it names another node", v1alpha1.ErrAssignment)
)

// Kind of a Report.
type Kind string

// The kinds.
const (
	// Refused: a call was answered with an error.
	Refused Kind = "Refused"
	// Mismatch: a pod holds other units than assigned.
	Mismatch Kind = "Mismatch"
	// Adopted: kubelet's own choice was accepted in Adopt mode.
	Adopted Kind = "Adopted"
)

// Report is something that an operator should hear of.
type Report struct {
	Kind     Kind
	Resource string
	// PodUID, Namespace and Name are empty where the pod is not known.
	PodUID, Namespace, Name string
	// Message in words, naming units.
	Message string
	// Err is the refusal, nil for other kinds.
	Err error
}
