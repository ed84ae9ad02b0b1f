// Package page is the controller's page for people: nodes as topology drawings with
// devices coloured by holder and health, virtual machines with their phase and their
// serial console. It is static HTML, CSS and JavaScript without anything from
// elsewhere, and a model as JSON that the browser fetches again and again.
//
//   - [Build] turns objects into the model (pure)
//   - [Handler] serves page, model and drawings; it can be mounted under any path
//   - [Under] mounts it behind an API server's authentication and authorization
//
// It is for controller/subresource, for `kubectl vfio page`, and for tests.
//
// Traps:
//   - The handler trusts whoever reaches it: it must only be mounted behind
//     authentication and authorization. The model names all machines of the cluster.
//   - It is read-only: every method but GET and HEAD is refused.
//   - The console is not served from here. The browser asks the same origin for the
//     pod's log (GET /api/v1/namespaces/…/pods/…/log), so that Kubernetes itself decides
//     with the rights of the person; the controller needs no right to read logs.
//   - All links are relative: the page works below a proxy's prefix.
package page
