// Package machine reconciles VirtualMachine objects: it makes, ends and replaces
// the VirtualMachineInstance of the same name as the run strategy and the
// requests of start, stop and restart say.
//
// It is for controller/app and for tests with a real API server.
//
// Traps:
//   - An instance is deleted and made anew under the same name: everything that is
//     remembered about one is keyed by its UID.
//   - Instances that fail one after the other are made with growing pauses
//     (n squared times 10 s, at most 5 min, as KubeVirt does).
package machine
