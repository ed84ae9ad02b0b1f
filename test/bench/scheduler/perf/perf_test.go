package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	_ "k8s.io/component-base/logs/json/register" // scheduler_perf's logging configuration
	"k8s.io/kubernetes/pkg/scheduler"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	perf "k8s.io/kubernetes/test/integration/scheduler_perf"
	"k8s.io/kubernetes/test/utils/ktesting"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology"
)

func TestMain(m *testing.M) {
	if err := perf.InitTests(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// size is a number from the environment.
func size(b *testing.B, name string, def int) int {
	b.Helper()
	s := os.Getenv("KUBEVFIO_BENCH_" + name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		b.Fatalf("KUBEVFIO_BENCH_%s: %v", name, err)
	}
	return n
}

// BenchmarkScheduler runs the workload that KUBEVFIO_BENCH_CASE names, all of
// them without one.
func BenchmarkScheduler(b *testing.B) {
	crds, err := filepath.Abs("../../../../manifests/crd")
	if err != nil {
		b.Fatal(err)
	}
	out := os.Getenv("KUBEVFIO_BENCH_OUT")
	if out == "" {
		out = b.TempDir()
	}
	dir := b.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		return path
	}
	only := os.Getenv("KUBEVFIO_BENCH_CASE")
	perf.PluginNames = append(perf.PluginNames, devicetopology.Name)
	for _, w := range workloads(size(b, "PODS", 1000), size(b, "DRA_PODS", 250), size(b, "ROUNDS", 4)) {
		if only != "" && only != w.name {
			continue
		}
		nodes := size(b, "NODES", 5000)
		gates := map[string]bool{"OpportunisticBatching": true}
		if w.dra {
			nodes = size(b, "DRA_NODES", 500)
			// Also has scheduler_perf run the controller that makes claims.
			gates["DynamicResourceAllocation"] = true
		}
		config, err := yaml.Marshal([]any{map[string]any{
			"name": w.name, "schedulerConfigPath": write("scheduler.yaml", schedulerConfig), "labels": []string{"performance"},
			"workloadTemplate": w.ops(nodes, write),
			"featureGates":     gates,
			"workloads":        []any{map[string]any{"name": "run", "params": map[string]int{}}},
		}})
		if err != nil {
			b.Fatal(err)
		}
		registry := frameworkruntime.Registry{}
		if err := registry.Register(devicetopology.Name, devicetopology.NewFactory().New); err != nil {
			b.Fatal(err)
		}
		c := newClock()
		perf.RunBenchmarkPerfScheduling(b, write(w.name+".yaml", string(config)), w.name, registry,
			perf.WithPrepareFn(func(tCtx ktesting.TContext) error {
				// Written before the cluster goes down, which takes a while.
				tCtx.Cleanup(func() {
					if err := c.save(filepath.Join(out, "throughput-"+w.name+".json"), w.slices()); err != nil {
						b.Error(err)
					}
				})
				return errors.Join(applyCRDs(tCtx, crds), c.start(tCtx))
			}),
			perf.WithNodeUpdateFn(func(tCtx ktesting.TContext, _ *scheduler.Scheduler, _ *perf.Workload, nodes *corev1.NodeList) error {
				var slices func(context.Context, string) error
				if w.dra {
					slices = func(ctx context.Context, node string) error { return publishSlice(ctx, tCtx, node) }
				}
				return publish(tCtx, nodes, slices)
			}))
	}
}

// slices are the pods that each slice must have to count.
func (w workload) slices() map[string]int {
	out := map[string]int{}
	for _, k := range w.kinds {
		for r := range w.rounds {
			for v := range w.variants {
				out[slice(k.name, r, v)] = k.pods
			}
		}
	}
	return out
}

// applyCRDs installs our CRDs and waits until the API server serves them.
func applyCRDs(tCtx ktesting.TContext, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "kubevfio.io_*.yaml"))
	if err != nil {
		return err
	}
	crd := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(raw, &obj.Object); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if _, err := tCtx.Dynamic().Resource(crd).Create(tCtx, obj, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	for range 300 {
		if _, err = tCtx.Dynamic().Resource(inventories()).List(tCtx, metav1.ListOptions{Limit: 1}); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the API server does not serve NodeInventory: %w", err)
}

func inventories() schema.GroupVersionResource {
	return v1alpha1.GroupVersion.WithResource("nodeinventories")
}

// publish gives every node 8 GPUs and 64 VFs below 4 root complexes, and the
// same as DRA devices where more is set.
func publish(tCtx ktesting.TContext, nodes *corev1.NodeList, more func(ctx context.Context, node string) error) error {
	var mu sync.Mutex
	var all []string
	workqueue.ParallelizeUntil(tCtx, 8, len(nodes.Items), func(i int) {
		name := nodes.Items[i].Name
		err := publishInventory(tCtx, name)
		if err == nil && more != nil {
			err = more(tCtx, name)
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, err.Error())
		}
	})
	if len(all) > 0 {
		return fmt.Errorf("%d of %d nodes: %s", len(all), len(nodes.Items), all[0])
	}
	return nil
}

func publishInventory(tCtx ktesting.TContext, node string) error {
	inv := devicetopology.ExampleInventory(node)
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(inv)
	if err != nil {
		return err
	}
	obj := &unstructured.Unstructured{Object: raw}
	obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeInventory"))
	_, err = tCtx.Dynamic().Resource(inventories()).Create(tCtx, obj, metav1.CreateOptions{})
	return err
}

// publishSlice gives a node the same devices for DRA.
func publishSlice(ctx context.Context, tCtx ktesting.TContext, name string) error {
	s := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.Spec.Driver = "bench.kubevfio.io"
	s.Spec.NodeName = &name
	s.Spec.Pool = resourceapi.ResourcePool{Name: name, ResourceSliceCount: 1}
	add := func(kind string, n, perRoot int) {
		for d := range n {
			root := "root-" + strconv.Itoa(d/perRoot)
			s.Spec.Devices = append(s.Spec.Devices, resourceapi.Device{
				Name: kind + "-" + strconv.Itoa(d),
				Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
					"kind": {StringValue: &kind}, "root": {StringValue: &root},
				},
			})
		}
	}
	add("gpu", 8, 2)
	add("vf", 64, 16)
	_, err := tCtx.Client().ResourceV1().ResourceSlices().Create(ctx, s, metav1.CreateOptions{})
	return err
}

// TestOps: both kinds of a comparison take turns and every slice is counted.
func TestOps(t *testing.T) {
	for _, w := range workloads(10, 5, 4) {
		templates := map[string]string{}
		ops := w.ops(3, func(name, text string) string {
			if old, ok := templates[name]; ok && old != text {
				t.Errorf("%s: two templates named %s", w.name, name)
			}
			templates[name] = text
			return name
		})
		got := map[string]int{}
		for _, o := range ops {
			if o["opcode"] == "createPods" && o["collectMetrics"] == true {
				got[o["namespace"].(string)] = o["count"].(int)
			}
		}
		want := w.slices()
		if len(got) != len(want) {
			t.Errorf("%s: %d slices are made, %d counted", w.name, len(got), len(want))
		}
		for ns, n := range want {
			if got[ns] != n {
				t.Errorf("%s: slice %s has %d pods, want %d", w.name, ns, got[ns], n)
			}
		}
		for name, text := range templates {
			var obj map[string]any
			if err := yaml.UnmarshalStrict([]byte(text), &obj); err != nil {
				t.Errorf("%s: %s: %v\n%s", w.name, name, err, text)
			}
			if strings.HasSuffix(name, ".yaml") && obj["kind"] == nil {
				t.Errorf("%s: %s has no kind", w.name, name)
			}
		}
	}
}
