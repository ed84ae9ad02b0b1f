// Package console carries the guest's serial console: from QEMU's socket to the
// container's stdout and to any number of streams, and from those to the guest.
//
// It is for the supervisor. The [Hub] is the only reader of QEMU's socket and
// always reads, so that QEMU, and with it the guest, never waits for a slow
// reader: each reader has a bounded buffer and loses its oldest bytes, with a
// mark, when it cannot keep up.
//
// Traps:
//   - Guest bytes are hostile. On a terminal that nobody has attached to
//     (kubectl logs) escape sequences could change the reader's terminal, so
//     [Filter] leaves text and colours only. Whoever attaches asks for raw bytes.
//   - Bytes that the guest writes while no supervisor lives (between its death
//     and the adoption) are dropped by QEMU.
package console
