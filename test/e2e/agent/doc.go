// Package agent holds the end-to-end tests of the node agent: one lab boot, in
// which the agent, kubelet and the node die at bad moments and devices go and come
// back.
//
// It is behind `make e2e-agent`: it takes a quarter of an hour. The environment is
// package testbed's.
package agent
