package kubeletconfig

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`{"kubeletconfig":{"topologyManagerPolicy":"single-numa-node","topologyManagerScope":"pod",
		"topologyManagerPolicyOptions":{"prefer-closest-numa-nodes":"true"},"cpuManagerPolicy":"static","memoryManagerPolicy":"Static",
		"reservedSystemCPUs":"0-1","reservedMemory":[{"numaNode":0,"limits":{"memory":"1Gi"}},{"numaNode":1,"limits":{"memory":"512Mi"}}],"other":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := v1alpha1.KubeletPolicy{
		TopologyManagerPolicy: "single-numa-node", TopologyManagerScope: "pod",
		TopologyManagerPolicyOptions: map[string]string{"prefer-closest-numa-nodes": "true"},
		CPUManagerPolicy:             "static", MemoryManagerPolicy: "Static", ReservedCPUs: "0-1",
		ReservedMemory: map[string]map[string]string{"0": {"memory": "1Gi"}, "1": {"memory": "512Mi"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("policy (-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "{}", "[]", `{"kubeletconfig":7}`} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v, want %v", bad, err, ErrConfig)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"kubeletconfig":{"reservedMemory":[{"numaNode":0,"limits":{"memory":"1Gi"}}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Parse(b); err != nil && !errors.Is(err, ErrConfig) {
			t.Fatalf("unclassed error %v", err)
		}
	})
}
