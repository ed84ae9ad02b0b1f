package admission

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// patch is one entry of manifests/crd/unsupported-*.yaml.
type patch struct {
	Path  string `json:"path"`
	Value struct {
		Type        string `json:"type"`
		Validations []struct {
			Message string `json:"message"`
		} `json:"x-kubernetes-validations"`
	} `json:"value"`
}

// good is a small valid instance spec.
const good = `
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
`

func instanceOf(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	var s map[string]any
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kubevfio.io/v1alpha1", "kind": "VirtualMachineInstance",
		"metadata": map[string]any{"name": "test", "namespace": namespace}, "spec": s,
	}}
}

func machineOf(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	o := instanceOf(t, spec)
	o.SetKind("VirtualMachine")
	o.Object["spec"] = map[string]any{"runStrategy": "Always", "template": map[string]any{"spec": o.Object["spec"]}}
	return o
}

// Every field of KubeVirt's that is known and not supported is refused by name,
// with a word about what to do.
func TestUnsupportedFieldsAreNamed(t *testing.T) {
	const root = "/spec/versions/0/schema/openAPIV3Schema/properties/"
	values := map[string]any{"object": map[string]any{}, "array": []any{map[string]any{}}, "string": "x", "boolean": true, "integer": int64(1), "": "1Gi"}
	for file, make := range map[string]func(*testing.T, string) *unstructured.Unstructured{
		"unsupported-vm.yaml": machineOf, "unsupported-vmi.yaml": instanceOf,
	} {
		var patches []patch
		readYAML(t, "manifests/crd/"+file, &patches)
		if len(patches) < 30 {
			t.Fatalf("%s has only %d fields", file, len(patches))
		}
		for _, p := range patches {
			steps := strings.Split(strings.TrimPrefix(p.Path, root), "/properties/")
			name := strings.ReplaceAll(strings.Join(steps, "."), "/items", "[0]")
			t.Run(file+"/"+name, func(t *testing.T) {
				o := make(t, good)
				at := o.Object
				for _, s := range steps[:len(steps)-1] {
					at = below(at, s)
				}
				leaf := steps[len(steps)-1]
				if _, ok := at[leaf]; ok {
					t.Fatalf("%s is in the valid example: it is supported, take it out of %s", name, file)
				}
				at[leaf] = values[p.Value.Type]
				err := server.Admin.Create(t.Context(), o, client.DryRunAll)
				if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), p.Value.Validations[0].Message) {
					t.Errorf("error = %v; want it to name %s and to say %q", err, name, p.Value.Validations[0].Message)
				}
			})
		}
	}
}

// below steps into a field, or a list's first element, and makes what is not there.
func below(at map[string]any, step string) map[string]any {
	list, isList := strings.CutSuffix(step, "/items")
	if !isList {
		m, ok := at[step].(map[string]any)
		if !ok {
			m = map[string]any{}
			if step == "tcpSocket" || step == "httpGet" {
				m["port"] = int64(22)
			}
			at[step] = m
		}
		return m
	}
	l, ok := at[list].([]any)
	if !ok {
		l = []any{map[string]any{}}
		if list == "accessCredentials" {
			l = []any{map[string]any{"sshPublicKey": map[string]any{
				"source":            map[string]any{"secret": map[string]any{"secretName": "s"}},
				"propagationMethod": map[string]any{"noCloud": map[string]any{}},
			}}}
		}
		at[list] = l
	}
	return l[0].(map[string]any)
}

func TestMachineValidation(t *testing.T) {
	c := client.WithFieldValidation(server.Admin, "Strict")
	cases := map[string]struct {
		change  func(o map[string]any)
		message string
	}{
		"good":                {func(map[string]any) {}, ""},
		"no strategy":         {func(o map[string]any) { delete(o, "runStrategy") }, "spec.runStrategy"},
		"bad strategy":        {func(o map[string]any) { o["runStrategy"] = "Sometimes" }, "spec.runStrategy"},
		"no template":         {func(o map[string]any) { delete(o, "template") }, "spec.template"},
		"unknown field":       {func(o map[string]any) { o["templat"] = map[string]any{} }, `unknown field "spec.templat"`},
		"QEMU option":         {func(o map[string]any) { options(o)["x-Foo"] = "1" }, "only options that start with x-"},
		"QEMU option's value": {func(o map[string]any) { options(o)["x-foo"] = "a\nb" }, "only options that start with x-"},
		"good QEMU option":    {func(o map[string]any) { options(o)["x-pci-vendor-id"] = "0x10de" }, ""},
		"small empty disk": {func(o map[string]any) {
			inner := o["template"].(map[string]any)["spec"].(map[string]any)
			inner["volumes"].([]any)[0].(map[string]any)["emptyDisk"] = map[string]any{"capacity": "1Ki"}
		}, "emptyDisk is 1Mi to 1Pi"},
		"no memory": {func(o map[string]any) {
			inner := o["template"].(map[string]any)["spec"].(map[string]any)
			delete(inner["domain"].(map[string]any), "memory")
		}, "memory.guest is not set: say how much memory"},
		"bad alignment": {func(o map[string]any) { devices(o)["alignment"] = "required:rack" }, "alignment"},
		"doubled device": {func(o map[string]any) {
			devices(o)["gpus"] = append(devices(o)["gpus"].([]any), devices(o)["gpus"].([]any)[0])
		}, "Duplicate value"},
		"assignment in the template": {func(o map[string]any) {
			o["template"].(map[string]any)["metadata"] = map[string]any{"annotations": map[string]any{"kubevfio.io/assignment": "x"}}
		}, "annotation kubevfio.io/assignment cannot be given"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := machineOf(t, good)
			tc.change(o.Object["spec"].(map[string]any))
			err := c.Create(t.Context(), o, client.DryRunAll)
			switch {
			case tc.message == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.message != "" && (err == nil || !strings.Contains(err.Error(), tc.message)):
				t.Errorf("error = %v; want it to contain %q", err, tc.message)
			}
		})
	}
}

// options are the QEMU options of the first host device.
func options(spec map[string]any) map[string]any {
	h := devices(spec)["hostDevices"].([]any)[0].(map[string]any)
	h["qemuOptions"] = map[string]any{}
	return h["qemuOptions"].(map[string]any)
}

func devices(spec map[string]any) map[string]any {
	inner := spec["template"].(map[string]any)["spec"].(map[string]any)
	return inner["domain"].(map[string]any)["devices"].(map[string]any)
}
