// Package virt drives libvirt's QEMU driver: one connection, one domain.
//
// It is for the supervisor. The real thing is compiled with cgo and the build
// tag libvirt_dlopen, which needs no libvirt headers and opens libvirt.so.0 at
// run time; without the tag [Open] gives [ErrNotSupported], so that everything
// above it compiles, is linted and unit tested without cgo.
//
// Traps:
//   - libvirt's event loop and the environment that its embedded driver reads
//     (HOME, XDG_*, LIBVIRT_LOG_OUTPUTS) are the process's: open one connection per
//     process, and set the environment before the process starts ([Environment]).
//   - The embedded driver keeps sockets under its root; unix socket paths end at
//     108 bytes, so the root may have [MaxRoot] bytes.
//   - libvirt waits for its own children by pid. A process that reaps all
//     children with wait4(-1) steals them: that is PID 1's work, in another process.
//   - Event callbacks run on the event loop's thread; a callback that calls
//     libvirt blocks all others. This package only queues them.
package virt
