package vmspec

import (
	"errors"
	"fmt"
)

// ErrInvalid is the class of every error about a spec that cannot be had, on
// any host.
var ErrInvalid = errors.New("invalid VM spec")

// Error is an error about one field. It is of class [ErrInvalid].
type Error struct {
	// Field is the path, such as spec.domain.devices.gpus[0].deviceName.
	Field string
	// Detail says what is wrong and what to write instead.
	Detail string
}

// Error implements error: "FIELD: DETAIL".
func (e *Error) Error() string { return e.Field + ": " + e.Detail }

// Is makes the class match.
func (e *Error) Is(target error) bool { return target == ErrInvalid }

// Errorf makes an error about a field.
func Errorf(field, format string, args ...any) error {
	return &Error{Field: field, Detail: fmt.Sprintf(format, args...)}
}
