// Package agentrpcv1 is the gRPC contract between the node agent and the
// launcher in a pod; agent.proto says what each call means.
//
// It is for deviceplugin (which serves it) and for launchers, through package
// api/agentrpc/client. Traps: the agent identifies the caller by the kernel's
// peer credentials, so a call is made by the very process whose limit shall be
// raised, never through a proxy; the folder of the socket is mounted, not the
// socket, so clients connect anew for each call.
//
//go:generate ./generate.sh
package agentrpcv1
