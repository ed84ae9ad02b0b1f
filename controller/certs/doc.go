// Package certs keeps the certificates of the controller's own TLS servers: it
// makes an authority and a serving certificate, keeps both in a Secret, renews
// them in time, and tells who has to trust them.
//
// It is for controller/app, whose webhook and aggregated API are called by the API
// server. No certificate manager is needed in the cluster.
//
// Traps:
//   - A new authority is published, together with the old one, at least one check
//     before a certificate that it signed is served: callers learn of it late.
//   - All replicas share the Secret; whoever comes second reads what the first one
//     wrote. A lost race is a conflict, and the next check reads again.
package certs
