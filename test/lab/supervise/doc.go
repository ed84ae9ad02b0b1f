// Package supervise starts, watches, restarts and stops named processes for a program that may itself be PID 1 of a PID
// namespace or of a machine: the lab's daemon and the init of the lab's nodes.
//
// Traps:
//   - A PID 1 must reap orphans, and a reaper that waits for "any child" steals the exit status of children that os/exec
//     waits for. [Supervisor.Reap] reaps only what was not started here, so every process of such a program has to be
//     started by its [Supervisor] ([Supervisor.Start] or [Supervisor.Run]), never by os/exec alone.
//   - Stopping a process stops that process, not what it left behind on purpose (containerd's shims outlive containerd).
package supervise
