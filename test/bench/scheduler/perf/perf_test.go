package perf

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

const (
	offConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
`
	onConfig = offConfig + `profiles:
- schedulerName: default-scheduler
  plugins:
    multiPoint:
      enabled: [{name: DeviceTopology, weight: 5}]
    filter:
      enabled: [{name: DeviceTopology}]
    bind:
      enabled: [{name: DeviceTopology}]
      disabled: [{name: DefaultBinder}]
`
	node = `apiVersion: v1
kind: Node
metadata: {generateName: bench-}
status:
  capacity: {pods: "110", cpu: "192", memory: 1536Gi, kubevfio.io/gpu: "8", kubevfio.io/vf: "64"}
  conditions: [{status: "True", type: Ready}]
  phase: Running
`
	plainPod = `apiVersion: v1
kind: Pod
metadata: {generateName: plain-}
spec:
  containers:
  - {name: c, image: registry.k8s.io/pause, resources: {requests: {cpu: 100m, memory: 500Mi}, limits: {cpu: 100m, memory: 500Mi}}}
`
	claimPod = `apiVersion: v1
kind: Pod
metadata: {generateName: claim-}
spec:
  containers:
  - {name: c, image: registry.k8s.io/pause, resources: {requests: {cpu: 100m}, claims: [{name: devices}]}}
  resourceClaims: [{name: devices, resourceClaimTemplateName: aligned}]
`
	deviceClass = `apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: KIND}
spec:
  selectors: [{cel: {expression: 'device.driver == "bench.kubevfio.io" && device.attributes["bench.kubevfio.io"].kind == "KIND"'}}]
`
	claimTemplate = `apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: aligned}
spec:
  spec:
    devices:
      requests:
      - {name: gpu, exactly: {deviceClassName: gpu, count: 2}}
      - {name: vf, exactly: {deviceClassName: vf, count: 2}}
      constraints: [{requests: [gpu, vf], matchAttribute: bench.kubevfio.io/root}]
`
)

// vmPod asks for n GPUs and n VFs; pods of up to half the GPUs want them below
// one root complex or NUMA node.
func vmPod(n int) string {
	wish := map[int]string{1: "required:root", 2: "required:root", 4: "required:numa", 8: "preferred:numa"}[n]
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  generateName: vm%d-
  annotations: {kubevfio.io/alignment: %s}
spec:
  containers:
  - name: c
    image: registry.k8s.io/pause
    resources:
      requests: {cpu: 100m, memory: 500Mi, kubevfio.io/gpu: %d, kubevfio.io/vf: %d}
      limits: {cpu: 100m, memory: 500Mi, kubevfio.io/gpu: %d, kubevfio.io/vf: %d}
`, n, wish, n, n, n, n)
}

// BenchmarkScheduler runs all workloads; KUBEVFIO_BENCH_CASES limits them.
func BenchmarkScheduler(b *testing.B) {
	crds, err := filepath.Abs("../../../../manifests/crd")
	if err != nil {
		b.Fatal(err)
	}
	nodes, draNodes := size(b, "NODES", 5000), size(b, "DRA_NODES", 500)
	pods := size(b, "PODS", 2*nodes)
	dir := b.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		return path
	}
	off, on := write("off.yaml", offConfig), write("on.yaml", onConfig)
	nodeFile := write("node.yaml", node)
	perf.PluginNames = append(perf.PluginNames, devicetopology.Name)

	type op map[string]any
	createPods := func(template string, count int) op {
		return op{"opcode": "createPods", "count": count, "podTemplatePath": template, "collectMetrics": true, "namespace": "bench"}
	}
	makeNodes := func(n int) op { return op{"opcode": "createNodes", "count": n, "nodeTemplatePath": nodeFile} }
	vms := func() []op {
		ops := []op{makeNodes(nodes)}
		// 65 % of the GPUs: 4, 3, 2 and 1 tenths of the pods.
		for i, n := range []int{1, 2, 4, 8} {
			ops = append(ops, createPods(write(fmt.Sprintf("vm%d.yaml", n), vmPod(n)), pods*(4-i)/10))
		}
		return ops
	}
	plain := []op{makeNodes(nodes), createPods(write("plain.yaml", plainPod), pods)}
	draPods := min(pods, 2*draNodes)
	cases := []struct {
		name, config string
		ops          []op
		dra          bool
	}{
		{"plain-off", off, plain, false},
		{"plain-on", on, plain, false},
		{"vm-extended", off, vms(), false},
		{"vm-ours", on, vms(), false},
		{"vm-dra-size-ours", on, []op{makeNodes(draNodes), createPods(write("vm2.yaml", vmPod(2)), draPods)}, false},
		{"dra", off, []op{
			{"opcode": "createAny", "templatePath": write("class-gpu.yaml", strings.ReplaceAll(deviceClass, "KIND", "gpu"))},
			{"opcode": "createAny", "templatePath": write("class-vf.yaml", strings.ReplaceAll(deviceClass, "KIND", "vf"))},
			{"opcode": "createNamespaces", "prefix": "bench", "count": 1},
			{"opcode": "createAny", "templatePath": write("claims.yaml", claimTemplate), "namespace": "bench-0"},
			makeNodes(draNodes),
			{"opcode": "createPods", "count": draPods, "podTemplatePath": write("claim.yaml", claimPod), "collectMetrics": true, "namespace": "bench-0"},
		}, true},
	}
	only := os.Getenv("KUBEVFIO_BENCH_CASES")
	for _, c := range cases {
		if only != "" && !strings.Contains(","+only+",", ","+c.name+",") {
			continue
		}
		config, err := yaml.Marshal([]any{map[string]any{
			"name": c.name, "schedulerConfigPath": c.config, "labels": []string{"performance"},
			"workloadTemplate": c.ops,
			"featureGates":     map[string]bool{"OpportunisticBatching": true},
			"workloads":        []any{map[string]any{"name": "run", "params": map[string]int{}}},
		}})
		if err != nil {
			b.Fatal(err)
		}
		registry := frameworkruntime.Registry{}
		if c.config == on {
			if err := registry.Register(devicetopology.Name, devicetopology.NewFactory().New); err != nil {
				b.Fatal(err)
			}
		}
		perf.RunBenchmarkPerfScheduling(b, write(c.name+".yaml", string(config)), c.name, registry,
			perf.WithPrepareFn(func(tCtx ktesting.TContext) error { return applyCRDs(tCtx, crds) }),
			perf.WithNodeUpdateFn(func(tCtx ktesting.TContext, _ *scheduler.Scheduler, _ *perf.Workload, nodes *corev1.NodeList) error {
				if c.dra {
					return publishSlices(tCtx, nodes)
				}
				return publishInventories(tCtx, nodes)
			}))
	}
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
	for range 100 {
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

// publishInventories gives every node 8 GPUs and 64 VFs below 4 root complexes.
func publishInventories(tCtx ktesting.TContext, nodes *corev1.NodeList) error {
	for i := range nodes.Items {
		inv := devicetopology.ExampleInventory(nodes.Items[i].Name)
		raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(inv)
		if err != nil {
			return err
		}
		obj := &unstructured.Unstructured{Object: raw}
		obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeInventory"))
		if _, err := tCtx.Dynamic().Resource(inventories()).Create(tCtx, obj, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// publishSlices gives every node the same devices for DRA.
func publishSlices(tCtx ktesting.TContext, nodes *corev1.NodeList) error {
	for i := range nodes.Items {
		name := nodes.Items[i].Name
		s := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.Spec.Driver = "bench.kubevfio.io"
		s.Spec.NodeName = &name
		s.Spec.Pool = resourceapi.ResourcePool{Name: name, ResourceSliceCount: 1}
		add := func(kind string, n, perRoot int) {
			for d := range n {
				root := fmt.Sprintf("root-%d", d/perRoot)
				s.Spec.Devices = append(s.Spec.Devices, resourceapi.Device{
					Name: fmt.Sprintf("%s-%d", kind, d),
					Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
						"kind": {StringValue: &kind}, "root": {StringValue: &root},
					},
				})
			}
		}
		add("gpu", 8, 2)
		add("vf", 64, 16)
		if _, err := tCtx.Client().ResourceV1().ResourceSlices().Create(tCtx, s, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
