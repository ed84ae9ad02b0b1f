package perf

import (
	"fmt"
	"strings"
)

// The two profiles of the one scheduler: plain pods and extended resources go
// through the first, which has no plugin of ours.
const (
	offProfile = "default-scheduler"
	onProfile  = "kubevfio-scheduler"
)

const (
	schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: kubevfio-scheduler
  plugins:
    multiPoint:
      enabled: [{name: DeviceTopology, weight: 5}]
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

// pod is a pod template. Pods end at once when they are deleted: no kubelet is
// there to end them.
func pod(profile, annotations, resources, rest string) string {
	text := `apiVersion: v1
kind: Pod
metadata:
  generateName: bench-
  annotations: {` + annotations + `}
spec:
  schedulerName: ` + profile + `
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: registry.k8s.io/pause, resources: ` + resources + `}
`
	if rest != "" {
		text += "  " + strings.ReplaceAll(rest, "\n", "\n  ") + "\n"
	}
	return text
}

func plainPod(profile string) string {
	return pod(profile, "", "{requests: {cpu: 100m, memory: 500Mi}, limits: {cpu: 100m, memory: 500Mi}}", "")
}

// vmPod asks for n GPUs and n VFs; pods of up to half the GPUs want them below
// one root complex or NUMA node.
func vmPod(profile string, n int) string {
	wish := map[int]string{1: "required:root", 2: "required:root", 4: "required:numa", 8: "preferred:numa"}[n]
	list := fmt.Sprintf("{cpu: 100m, memory: 500Mi, kubevfio.io/gpu: %d, kubevfio.io/vf: %d}", n, n)
	return pod(profile, "kubevfio.io/alignment: "+wish, "{requests: "+list+", limits: "+list+"}", "")
}

// claimPod has the wish of vmPod(2) as a claim.
func claimPod() string {
	return pod(offProfile, "", "{requests: {cpu: 100m, memory: 500Mi}, limits: {cpu: 100m, memory: 500Mi}, claims: [{name: devices}]}",
		"resourceClaims: [{name: devices, resourceClaimTemplateName: aligned}]")
}

// op is one operation of scheduler_perf.
type op map[string]any

// workload is one comparison: slices of pods of two kinds, taken in turns in one
// cluster, so that whatever else the machine does meets both.
type workload struct {
	name string
	dra  bool
	// kinds are the two to compare; rate of the first over rate of the second.
	kinds [2]kind
	// variants are the sizes of pods that a round goes through.
	variants int
	rounds   int
	// clear removes a slice's pods before the next one.
	clear bool
}

// kind is one side of a comparison.
type kind struct {
	name string
	pods int
	// template gives the pod of a variant.
	template func(variant int) string
}

var vmSizes = []int{1, 2, 4, 8}

// workloads are all comparisons; pods and draPods are the pods of a slice.
func workloads(pods, draPods, rounds int) []workload {
	vm := func(profile string) func(int) string {
		return func(v int) string { return vmPod(profile, vmSizes[v]) }
	}
	return []workload{
		{
			name: "plain", variants: 1, rounds: rounds,
			kinds: [2]kind{
				{"on", pods, func(int) string { return plainPod(onProfile) }},
				{"off", pods, func(int) string { return plainPod(offProfile) }},
			},
		},
		{
			name: "vm", variants: len(vmSizes), rounds: max(1, rounds/2), clear: true,
			kinds: [2]kind{{"ours", pods, vm(onProfile)}, {"extended", pods, vm(offProfile)}},
		},
		{
			name: "dra", variants: 1, rounds: max(1, rounds/2), dra: true,
			kinds: [2]kind{
				{"ours", 2 * draPods, func(int) string { return vmPod(onProfile, 2) }},
				{"dra", draPods, func(int) string { return claimPod() }},
			},
		},
	}
}

// slice is the namespace of one slice of pods.
func slice(kind string, round, variant int) string {
	return fmt.Sprintf("%s-%d-%d", kind, round, variant)
}

// ops are the workload's operations. Write keeps a template and returns its path.
func (w workload) ops(nodes int, write func(name, text string) string) []op {
	ops := []op{}
	createAny := func(file, text, namespace string) {
		o := op{"opcode": "createAny", "templatePath": write(file, text)}
		if namespace != "" {
			o["namespace"] = namespace
		}
		ops = append(ops, o)
	}
	if w.dra {
		createAny("class-gpu.yaml", strings.ReplaceAll(deviceClass, "KIND", "gpu"), "")
		createAny("class-vf.yaml", strings.ReplaceAll(deviceClass, "KIND", "vf"), "")
	}
	ops = append(ops, op{"opcode": "createNodes", "count": nodes, "nodeTemplatePath": write("node.yaml", node)})
	add := func(k kind, ns string, variant, count int, measure bool) {
		if w.dra {
			createAny("claims.yaml", claimTemplate, ns)
		}
		ops = append(ops, op{
			"opcode": "createPods", "count": count, "namespace": ns, "collectMetrics": measure,
			"podTemplatePath": write(fmt.Sprintf("%s-%d.yaml", k.name, variant), k.template(variant)),
		})
		if w.clear {
			ops = append(ops, op{"opcode": "deletePods", "namespace": ns}, op{"opcode": "sleep", "duration": "2s"})
		}
	}
	// Caches and the heap settle.
	for _, k := range w.kinds {
		add(k, "warm-"+k.name, 0, max(1, k.pods/5), false)
	}
	for r := range w.rounds {
		for v := range w.variants {
			// First one first, then the other.
			order := []int{0, 1}
			if (r+v)%2 == 1 {
				order = []int{1, 0}
			}
			for _, i := range order {
				add(w.kinds[i], slice(w.kinds[i].name, r, v), v, w.kinds[i].pods, true)
			}
		}
	}
	return ops
}
