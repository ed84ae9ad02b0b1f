package crdschema

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

var (
	specObjects = flag.Int("spec-objects", 1200, "random objects of the schema fuzz")
	specSeed    = flag.Uint64("spec-seed", 1, "seed of the schema fuzz")
)

// bases are valid specs that together use most of the schema.
var bases = []string{
	`
domain:
  cpu: {cores: 1}
  memory: {guest: 256Mi}
  firmware: {kernelBoot: {container: {image: x, kernelPath: /boot/vmlinuz}}}
  devices:
    gpus: [{name: g, deviceName: example.com/gpu}]
    hostDevices: [{name: h, deviceName: example.com/nvme}]
    interfaces: [{name: default, passt: {}}]
    disks: [{name: root}]
volumes: [{name: root, emptyDisk: {capacity: 1Gi}}]
networks: [{name: default, pod: {}}]
`, `
domain:
  cpu: {cores: 2, sockets: 1, threads: 2, model: host-passthrough, dedicatedCpuPlacement: true, isolateEmulatorThread: true, features: [{name: svm, policy: require}], numa: {guestMappingPassthrough: {}}}
  memory: {guest: 4Gi, hugepages: {pageSize: 1Gi}}
  machine: {type: q35}
  clock: {timezone: Europe/Berlin}
  ioThreadsPolicy: auto
  firmware: {uuid: 3c6f0c2e-0000-4000-8000-000000000001, serial: s1, bootloader: {efi: {secureBoot: true, persistent: true}}}
  features: {smm: {enabled: true}, kvm: {hidden: true}, hyperv: {relaxed: {}, vpindex: {}, synic: {}, spinlocks: {spinlocks: 8191}, vendorid: {vendorid: abc}}}
  devices:
    alignment: required:root
    pciTopology: Mirror
    gpus:
    - {name: g0, deviceName: example.com/gpu, bootOrder: 3, rom: {bar: false}, qemuOptions: {x-pci-vendor-id: "1"}, virtualGPUOptions: {display: {enabled: true, ramFB: {enabled: true}}}}
    hostDevices: [{name: h0, deviceName: example.com/nvme, use: Disk}]
    interfaces:
    - {name: vf, sriov: {deviceName: example.com/vf, vlan: 5, vlanQoS: 1, linkState: auto}, macAddress: "02:00:00:00:00:01", acpiIndex: 1}
    - {name: default, passt: {}, ports: [{port: 22}, {port: 53, protocol: UDP}], model: virtio, acpiIndex: 2}
    disks:
    - {name: root, bootOrder: 1, disk: {bus: virtio}, dedicatedIOThread: true, cache: none, io: native}
    - {name: cd, bootOrder: 2, cdrom: {bus: sata}}
    - {name: data, lun: {bus: scsi}, shareable: true, serial: abc}
    - {name: init}
    filesystems: [{name: share, virtiofs: {}}]
    iommu: {model: intel}
    watchdog: {name: w, i6300esb: {action: reset}}
    tpm: {persistent: true}
    panicDevices: [{model: isa}, {model: pvpanic}]
volumes:
- {name: root, containerDisk: {image: example.com/disk, path: disk/a.img}}
- {name: cd, emptyDisk: {capacity: 1Gi}}
- {name: data, persistentVolumeClaim: {claimName: data}}
- {name: init, cloudInitNoCloud: {userDataBase64: YQ==, networkData: x}}
- {name: share, configMap: {name: c}}
- {name: persistent-state, dataVolume: {name: state}}
networks: [{name: default, pod: {}}]
readinessProbe: {tcpSocket: {port: 22}, periodSeconds: 5}
livenessProbe: {httpGet: {port: 22, path: /}, failureThreshold: 10}
accessCredentials: [{sshPublicKey: {source: {secret: {secretName: keys}}, propagationMethod: {noCloud: {}}}}]
evictionStrategy: None
terminationGracePeriodSeconds: 5
`, `
domain:
  resources: {requests: {cpu: 1500m, memory: 1Gi}}
  firmware: {bootloader: {bios: {useSerial: true}}}
`,
}

// TestInvalidSpecsNeverGetIn changes valid objects at random, by the types of the
// API and by raw values. What the API server takes must be a spec that the
// controller can make a pod of and that the launcher can decode.
func TestInvalidSpecsNeverGetIn(t *testing.T) {
	all := schemas(t)
	r := &specFuzz{Rand: rand.New(rand.NewPCG(*specSeed, 0))}
	taken, refused := 0, 0
	for i := range *specObjects {
		o := r.object(t, i)
		sent, err := json.Marshal(o.Object["spec"])
		if err != nil {
			t.Fatal(err)
		}
		if err := all[o.GetKind()].Create(t.Context(), o.Object); err != nil {
			refused++
			if strings.Contains(err.Error(), "cost") || strings.Contains(err.Error(), "runtime error") {
				t.Errorf("object %d: a rule cannot be evaluated: %v\n%s", i, err, sent)
			}
			continue
		}
		taken++
		if err := usable(o); err != nil && !strings.Contains(err.Error(), "emptyDisk.capacity") { // the policy's
			t.Errorf("object %d (-spec-seed=%d) got in: %v\n%s", i, *specSeed, err, sent)
		}
	}
	t.Logf("%d objects taken, %d refused", taken, refused)
	if taken < *specObjects/20 || refused < *specObjects/20 {
		t.Errorf("%d taken, %d refused: one side is hardly tested", taken, refused)
	}
}

// Each base gets in as it is.
func TestFuzzBasesAreValid(t *testing.T) {
	all := schemas(t)
	for i, b := range bases {
		for _, o := range []*unstructured.Unstructured{instanceOf(t, b), machineOf(t, b)} {
			if err := all[o.GetKind()].Create(t.Context(), o.Object); err != nil {
				t.Errorf("base %d as %s: %v", i, o.GetKind(), err)
			} else if err := usable(o); err != nil {
				t.Errorf("base %d as %s: %v", i, o.GetKind(), err)
			}
		}
	}
}

// usable does with an accepted object what the controller does.
func usable(o *unstructured.Unstructured) error {
	spec := o.Object["spec"]
	if o.GetKind() == "VirtualMachine" {
		spec = spec.(map[string]any)["template"].(map[string]any)["spec"]
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	typed, err := vmspec.Decode(b)
	if err != nil {
		return err
	}
	vmi := &v1alpha1.VirtualMachineInstance{Spec: *typed}
	vmi.Name, vmi.Namespace, vmi.UID = "test", namespace, "u"
	pod, err := launcherpod.Build(vmi, launcherpod.Situation{Attempt: 1}, launcherpod.Options{Image: "launcher"})
	if err != nil {
		return err
	}
	_, err = vmspec.Decode([]byte(pod.Annotations[v1alpha1.VMAnnotation]))
	return err
}

type specFuzz struct{ *rand.Rand }

// object is a base with a few changes.
func (r *specFuzz) object(t *testing.T, i int) *unstructured.Unstructured {
	base := bases[r.IntN(len(bases))]
	make := instanceOf
	if i%2 == 1 {
		make = machineOf
	}
	o := make(t, base)
	spec := o.Object["spec"].(map[string]any)
	if i%2 == 1 {
		spec = spec["template"].(map[string]any)["spec"].(map[string]any)
	}
	for range 1 + r.IntN(3) {
		if r.IntN(3) == 0 {
			r.raw(spec)
			continue
		}
		b, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var typed v1alpha1.VirtualMachineInstanceSpec
		if json.Unmarshal(b, &typed) != nil {
			continue // a raw change made it unreadable
		}
		r.change(reflect.ValueOf(&typed).Elem(), "")
		if b, err = json.Marshal(typed); err != nil {
			t.Fatal(err)
		}
		clear(spec)
		if err := utiljson.Unmarshal(b, &spec); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// change replaces one thing somewhere below v.
func (r *specFuzz) change(v reflect.Value, field string) {
	switch v.Kind() {
	case reflect.Struct:
		if foreign(v.Type()) || v.NumField() == 0 || r.IntN(12) == 0 {
			r.fill(v, field, 0)
			return
		}
		f := r.IntN(v.NumField())
		r.change(v.Field(f), v.Type().Field(f).Name)
	case reflect.Pointer:
		switch {
		case v.IsNil():
			r.fill(v, field, 1)
		case r.IntN(4) == 0:
			v.SetZero()
		default:
			r.change(v.Elem(), field)
		}
	case reflect.Slice:
		switch n := v.Len(); {
		case n == 0 || r.IntN(4) == 0:
			e := reflect.New(v.Type().Elem()).Elem()
			r.fill(e, field, 1)
			v.Set(reflect.Append(v, e))
		case r.IntN(4) == 0:
			v.Set(reflect.Append(v, v.Index(r.IntN(n)))) // twice
		case r.IntN(4) == 0:
			i := r.IntN(n)
			v.Set(reflect.AppendSlice(v.Slice3(0, i, i), v.Slice(i+1, n)))
		default:
			r.change(v.Index(r.IntN(n)), field)
		}
	default:
		r.fill(v, field, 0)
	}
}

// foreign are Kubernetes' own types whose rules are the pods', not ours.
func foreign(t reflect.Type) bool {
	return t == reflect.TypeFor[resource.Quantity]() || strings.HasPrefix(t.PkgPath(), "k8s.io/")
}

var quantities = []string{"0", "1", "1m", "500m", "15Mi", "16Mi", "1Gi", "3Gi", "1025Mi", "128Ti", "129Ti", "-1", "4096", "4097", "1e3", "0.5Gi", "1Ei"}

// words of the schema, good and bad, whatever the field.
var words = []string{
	"", "a", "root", "default", "g0", "h0", "vf", "persistent-state", "x y", "a,b", "-a", "é", "\u0001", "a=b", strings.Repeat("a", 300), strings.Repeat("b", 63), strings.Repeat("c", 37),
	"/boot/vmlinuz", "/a/../b", "/a//b", "a/b", "/", "..", "example.com/gpu", "Example.com/gpu", "cpu", "02:00:00:00:00:01", "01:00:00:00:00:01", "00:00:00:00:00:00", "02-00-00-00-00-01",
	"virtio", "scsi", "sata", "usb", "none", "writeback", "native", "threads", "q35", "pc-q35-10.0", "pc", "host-model", "require", "2Mi", "1Gi", "passt", "slirp", "TCP", "UDP", "auto",
	"intel", "reset", "isa", "hyperv", "Paused", "Mirror", "Device", "Disk", "required:root", "preferred:rack", "ColdMove", "None", "YQ==", "%%%", "Europe/Berlin", "3c6f0c2e-0000-4000-8000-000000000001", "not-a-uuid", "stop",
}

func (r *specFuzz) fill(v reflect.Value, field string, depth int) {
	t := v.Type()
	switch {
	case t == reflect.TypeFor[resource.Quantity]():
		v.Set(reflect.ValueOf(resource.MustParse(quantities[r.IntN(len(quantities))])))
		return
	case t == reflect.TypeFor[corev1.ResourceList]():
		list := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "example.com/gpu"} {
			if r.IntN(2) == 0 {
				list[name] = resource.MustParse(quantities[r.IntN(len(quantities))])
			}
		}
		v.Set(reflect.ValueOf(list))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{-1, 0, 1, 2, 7, 8, 22, 4094, 4095, 16384, 65535, 65536}[r.IntN(12)])
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		v.SetUint([]uint64{0, 1, 2, 3, 64, 255, 256, 4095, 4096, 4097}[r.IntN(10)])
	case reflect.Pointer:
		if depth > 4 {
			return
		}
		v.Set(reflect.New(t.Elem()))
		r.fill(v.Elem(), field, depth+1)
	case reflect.Struct:
		if strings.HasPrefix(t.PkgPath(), "k8s.io/") && t != reflect.TypeFor[corev1.LocalObjectReference]() {
			return
		}
		for i := range v.NumField() {
			if r.IntN(3) == 0 {
				r.fill(v.Field(i), t.Field(i).Name, depth+1)
			}
		}
	case reflect.Slice:
		if foreign(t.Elem()) || depth > 4 {
			return
		}
		v.SetZero()
		for range r.IntN(3) {
			e := reflect.New(t.Elem()).Elem()
			r.fill(e, field, depth+1)
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		if t.Elem().Kind() == reflect.String {
			m := reflect.MakeMap(t)
			m.SetMapIndex(reflect.ValueOf([]string{"x-a", "x-no-mmap", "y", "enable-migration"}[r.IntN(4)]), reflect.ValueOf("1"))
			v.Set(m)
		}
	}
}

// raw replaces, adds or removes a value without regard to types.
func (r *specFuzz) raw(m map[string]any) {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		m[fmt.Sprintf("field%d", r.IntN(3))] = r.value()
		return
	}
	k := keys[r.IntN(len(keys))]
	switch below := m[k].(type) {
	case map[string]any:
		if r.IntN(6) > 0 {
			r.raw(below)
			return
		}
	case []any:
		if len(below) > 0 && r.IntN(6) > 0 {
			if e, ok := below[r.IntN(len(below))].(map[string]any); ok {
				r.raw(e)
				return
			}
		}
	}
	switch r.IntN(4) {
	case 0:
		delete(m, k)
	case 1:
		m[k+"x"] = r.value()
	default:
		m[k] = r.value()
	}
}

func (r *specFuzz) value() any {
	return []any{"", "x", int64(-1), int64(0), int64(1), 1.5, true, false, nil, map[string]any{}, []any{}, []any{map[string]any{}}, []any{nil}}[r.IntN(13)]
}
