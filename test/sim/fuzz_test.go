package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

func asFile(t *testing.T, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// FuzzTrace: a file is refused as an invalid trace, or its rows are within the bounds
// that the simulator relies on.
func FuzzTrace(f *testing.F) {
	f.Add([]byte("sn,cpu_milli,memory_mib,gpu,model\na,64000,262144,2,T4\nb,1.5,0,8,\n"))
	f.Add([]byte("\ufeffname,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np,1,2,1,500,A100|V100\nq,1,2,3,,nan\n"))
	f.Add([]byte("cpu_milli,memory_mib,gpu\nNaN,-1,1e99\n"))
	f.Add([]byte("cpu_milli,memory_mib,gpu\n\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := asFile(t, b)
		nodes, err := readNodes(file)
		if err != nil && !errors.Is(err, errTrace) {
			t.Errorf("nodes: an error without class: %v", err)
		}
		for _, n := range nodes {
			if n.gpus < 0 || n.gpus > maxGPUs || n.milliCPU < 0 || n.milliCPU > maxNumber || n.memoryMiB < 0 || n.memoryMiB > maxNumber {
				t.Errorf("node out of bounds: %+v", n)
			}
		}
		pods, err := readPods(file)
		if err != nil && !errors.Is(err, errTrace) {
			t.Errorf("pods: an error without class: %v", err)
		}
		for _, p := range pods {
			if p.gpus < 0 || p.gpus > maxGPUs || p.milliCPU < 0 || p.milliCPU > maxNumber || p.gpuMilli < 0 || p.gpuMilli > maxNumber {
				t.Errorf("pod out of bounds: %+v", p)
			}
		}
	})
}

// FuzzOverlay: a file is refused as an invalid trace, or a server of each of its
// shapes can be built and each of its wishes be drawn.
func FuzzOverlay(f *testing.F) {
	f.Add([]byte("fractional: drop\nshapes:\n- {gpus: 8, numa: 2, sockets: 2, switches: 4, vfsPerSwitch: 16, partitions: [8, 4, 2, 1]}\nwishes:\n- {minGPUs: 1, share: 0.5, vfsPerGPU: 1, alignment: \"required:switch\"}\n"), 8)
	f.Add([]byte("shapes:\n- {numa: 64, sockets: 64, switches: 64}\n- {models: [A], numa: 3, sockets: 2}\n"), 3)
	f.Add([]byte("wishes: [{share: .nan}]"), 1)
	f.Fuzz(func(t *testing.T, b []byte, gpus int) {
		o, err := readOverlay(asFile(t, b))
		if err != nil {
			if !errors.Is(err, errTrace) {
				t.Errorf("an error without class: %v", err)
			}
			return
		}
		gpus = (gpus%maxGPUs + maxGPUs) % maxGPUs
		for _, s := range o.Shapes {
			// Servers with so many functions are right and slow to build.
			if s.VFsPerSwitch*max(s.Switches, s.NUMA, 1) > 256 {
				continue
			}
			if _, err := engine.NewNode(s.spec(gpus), &engine.Interner{}); err != nil {
				t.Errorf("%+v with %d GPUs: %v", s, gpus, err)
			}
		}
		if _, err := o.podFor(rand.New(rand.NewPCG(1, 2)), &podRow{gpus: gpus}); err != nil {
			t.Errorf("pod: %v", err)
		}
	})
}
