// Package pid1 is the first process of a launcher's container: it keeps a
// supervisor running, reaps what ends, passes signals on and has the last word:
// the container's exit code and termination message.
//
// It is for `kubevfio-launcher run`. It is small on purpose, for the guest lives
// exactly as long as it does: when PID 1 ends, the kernel kills QEMU with the
// rest of the container.
//
// QEMU makes itself a daemon and so becomes a child of this process (which is
// also a child subreaper, for pods that share a PID namespace). That is why the
// guest survives the supervisor, and why this process knows how QEMU ended.
//
// Traps:
//   - Reaping is wait4(-1), so nothing in this process may use os/exec's Wait.
//   - The supervisor writes its outcome before it exits. A supervisor that ends
//     without one has died, whatever its exit code.
package pid1
