// Package rpc serves and calls launcherrpc/v1: HTTP/1.1 on a unix socket in the
// launcher's run folder.
//
// It is for the supervisor (the server) and for the subcommands proxy and probe
// (the client).
//
// Traps:
//   - A stale socket file of a supervisor that died is in the way of bind; the
//     server removes it first. Only one supervisor lives at a time.
//   - After an upgrade both sides speak raw bytes; what the HTTP reader has
//     already buffered belongs to the stream.
package rpc
