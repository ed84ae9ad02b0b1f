// Package launcher holds the launcher's end-to-end tests: one lab boot with
// huge pages, shared by all tests of the package. `make e2e-launcher` runs it;
// `make test` does not.
//
// Every guest runs in a namespace that enforces the restricted Pod Security
// Standard. The tests measure the memory overhead against the cgroup's peak and
// log the formula's error.
//
// Environment: E2E_ATTACH=1 uses this checkout's running lab (`go run
// ./test/lab up --hugepages 300`) and leaves it up.
package launcher
