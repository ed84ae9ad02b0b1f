// Package policydiff compares the scheduler plugin's prediction of kubelet's
// topology policies with kubelet's own topology, CPU, memory and device
// managers, in process, on random nodes and pods.
//
// The plugin sees only what the API shows: pods, NodeInventory and NodeUsage.
// While NodeUsage is current, every pod that the plugin places must be admitted
// and get exactly its assignment. With reports that come late the rate of
// refusals is printed.
//
// Kubelet's device manager uses the fixed folder /var/lib/kubelet: the test runs
// itself again in a mount namespace of its own, as root or in a user namespace.
// -pods sets the number of placements, -seed replays.
package policydiff
