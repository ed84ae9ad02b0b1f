// Package explain finds out why a guest does not run, or that it does: one cause,
// one thing to do next, and the facts behind them. It is pure: callers gather the
// objects.
//
// It is for `kubectl vfio explain`.
//
// Traps:
//   - The first line is what a person on call reads. It names the cause, not the
//     symptom; when two things are wrong, the one that comes first on the way of a
//     VM wins.
//   - Objects may be absent: people ask in the middle of things.
package explain
