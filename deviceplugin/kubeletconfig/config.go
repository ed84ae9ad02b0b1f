// Package kubeletconfig reads from kubelet's /configz what decides where on a
// node containers are placed.
//
// It is for package agent.
package kubeletconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// ErrConfig is the class of errors about kubelet's configuration.
var ErrConfig = errors.New("kubelet's configuration")

// Path of the configuration in kubelet's API.
const Path = "/configz"

// Parse reads the answer of /configz.
func Parse(body []byte) (v1alpha1.KubeletPolicy, error) {
	var in struct {
		KubeletConfig *struct {
			TopologyManagerPolicy        string            `json:"topologyManagerPolicy"`
			TopologyManagerScope         string            `json:"topologyManagerScope"`
			TopologyManagerPolicyOptions map[string]string `json:"topologyManagerPolicyOptions"`
			CPUManagerPolicy             string            `json:"cpuManagerPolicy"`
			CPUManagerPolicyOptions      map[string]string `json:"cpuManagerPolicyOptions"`
			MemoryManagerPolicy          string            `json:"memoryManagerPolicy"`
			ReservedSystemCPUs           string            `json:"reservedSystemCPUs"`
			ReservedMemory               []struct {
				NumaNode int               `json:"numaNode"`
				Limits   map[string]string `json:"limits"`
			} `json:"reservedMemory"`
		} `json:"kubeletconfig"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return v1alpha1.KubeletPolicy{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c := in.KubeletConfig
	if c == nil {
		return v1alpha1.KubeletPolicy{}, fmt.Errorf("%w: %s has no kubeletconfig", ErrConfig, Path)
	}
	out := v1alpha1.KubeletPolicy{
		TopologyManagerPolicy: c.TopologyManagerPolicy, TopologyManagerScope: c.TopologyManagerScope,
		TopologyManagerPolicyOptions: c.TopologyManagerPolicyOptions,
		CPUManagerPolicy:             c.CPUManagerPolicy, CPUManagerPolicyOptions: c.CPUManagerPolicyOptions,
		MemoryManagerPolicy: c.MemoryManagerPolicy, ReservedCPUs: c.ReservedSystemCPUs,
	}
	for _, m := range c.ReservedMemory {
		if out.ReservedMemory == nil {
			out.ReservedMemory = map[string]map[string]string{}
		}
		node := strconv.Itoa(m.NumaNode)
		if out.ReservedMemory[node] == nil {
			out.ReservedMemory[node] = map[string]string{}
		}
		for k, v := range m.Limits {
			out.ReservedMemory[node][k] = v
		}
	}
	return out, nil
}
