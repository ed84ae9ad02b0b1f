// Package eviction answers the API server's question whether a launcher pod may be
// evicted: not yet, while its guest can be moved to another node.
//
// It is for controller/app.
//
// Traps:
//   - It must never hold a drain for good. A refusal is "try again" (429), it ends
//     after a while whatever happens, the webhook's failure policy is Ignore, and
//     what it does not know it lets go.
//   - Evictions have no labels: an object selector cannot tell launcher pods from
//     others. The manifest's match condition goes by the form of their names, and
//     the handler by the cache, which has launcher pods only.
//   - Every replica answers, not the leader alone; it only writes down that the
//     guest shall leave its node, and the leader's reconciler acts.
package eviction
