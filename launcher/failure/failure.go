// Package failure classes the ways in which a launcher can fail, so that each
// becomes its exit code, its reason word and a termination message that names
// the field or address at fault.
//
// It is for the packages under launcher: they return an [Error] (or wrap one),
// and only the supervisor and PID 1 turn it into an outcome.
package failure

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Error is a failure with its class. Its text is that of Err.
type Error struct {
	// Reason is one of the Reason constants of launcherrpc/v1.
	Reason string
	// Field is the path in the VM's spec at fault, Address the PCI address;
	// either may be empty.
	Field, Address string
	// Err says what happened and what to do.
	Err error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New classes err; a nil err gives a nil *Error's interface, that is nil.
func New(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Reason: reason, Err: err}
}

// Newf classes a new error made as by fmt.Errorf.
func Newf(reason, format string, args ...any) error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Field classes err as a bad spec at the given path.
func Field(path string, err error) error {
	return &Error{Reason: launcherrpcv1.ReasonBadSpec, Field: path, Err: err}
}

// Address classes err under reason, at a PCI address.
func Address(reason, address string, err error) error {
	return &Error{Reason: reason, Address: address, Err: err}
}

// ExitCode is the exit code of a reason; unknown reasons are internal errors.
func ExitCode(reason string) int {
	switch reason {
	case launcherrpcv1.ReasonGuestShutdown, launcherrpcv1.ReasonStopped, launcherrpcv1.ReasonForcedOff:
		return v1alpha1.ExitGuestShutdown
	case launcherrpcv1.ReasonBadSpec:
		return v1alpha1.ExitBadSpec
	case launcherrpcv1.ReasonAssignment, launcherrpcv1.ReasonDeviceNotViable:
		return v1alpha1.ExitDeviceNotViable
	case launcherrpcv1.ReasonMemoryLock:
		return v1alpha1.ExitMemoryLock
	case launcherrpcv1.ReasonQEMUDidNotStart, launcherrpcv1.ReasonHostCannotHold:
		return v1alpha1.ExitQEMUDidNotStart
	case launcherrpcv1.ReasonGuestPanicked:
		return v1alpha1.ExitGuestPanicked
	case launcherrpcv1.ReasonQEMUDied, launcherrpcv1.ReasonQEMUOutOfMemory:
		return v1alpha1.ExitQEMUDied
	default:
		return v1alpha1.ExitLauncherInternal
	}
}

// Outcome turns an error into the last word about a launcher. An error without
// a class is an internal one; a cancelled context is a stop before the guest
// had started; nil is a guest that shut down.
func Outcome(err error) launcherrpcv1.Outcome {
	o := launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonLauncherInternal}
	var e *Error
	switch {
	case err == nil:
		o.Reason, o.Message = launcherrpcv1.ReasonGuestShutdown, "the guest shut down"
	case errors.As(err, &e):
		o.Reason, o.Field, o.Address, o.Message = e.Reason, e.Field, e.Address, err.Error()
	case errors.Is(err, context.Canceled):
		o.Reason, o.Message = launcherrpcv1.ReasonStopped, "asked to stop before the guest had started"
	default:
		o.Message = err.Error()
	}
	o.ExitCode = ExitCode(o.Reason)
	return o
}

// Shorten cuts s to at most limit bytes at a rune boundary, keeping its
// beginning and its end, with a mark between them.
func Shorten(s string, limit int) string {
	const mark = " … "
	if len(s) <= limit {
		return s
	}
	if limit <= len(mark)+8 {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		return s[:limit]
	}
	head := (limit - len(mark)) * 2 / 3
	tail := len(s) - (limit - len(mark) - head)
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	for tail < len(s) && !utf8.RuneStart(s[tail]) {
		tail++
	}
	return s[:head] + mark + s[tail:]
}
