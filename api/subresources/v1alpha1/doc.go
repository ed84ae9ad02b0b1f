// Package subresourcesv1alpha1 is the wire form of the aggregated API
// subresources.kubevfio.io/v1alpha1.
//
// It is for the controller, which serves it, and for clients such as kubectl vfio.
// docs/user/api.md lists paths, verbs and roles.
//
// Traps:
//   - Bodies are decoded strictly: a field that is not here is refused.
//   - The group has no objects of its own: only subresources of the machines and
//     instances of group kubevfio.io, by their names.
package subresourcesv1alpha1
