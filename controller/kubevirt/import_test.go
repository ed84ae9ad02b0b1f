package kubevirt

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/api/vmspec"
)

var update = flag.Bool("update", false, "rewrite golden files")

const machine = `
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: web
  namespace: vms
  uid: x
  labels: {app: web}
  annotations: {vm.kubevirt.io/os: linux, owner: alice}
spec:
  running: true
  dataVolumeTemplates: []
  template:
    metadata:
      labels: {app: web}
    spec:
      evictionStrategy: LiveMigrate
      domain:
        cpu: {cores: 4, dedicatedCpuPlacement: true, realtime: {}}
        memory: {guest: 4Gi, hugepages: {pageSize: 2Mi}}
        launchSecurity: {sev: {}}
        devices:
          inputs: [{type: tablet, bus: usb, name: t}]
          gpus: [{name: g0, deviceName: nvidia.com/A100}]
          interfaces:
          - {name: default, masquerade: {}, dhcpOptions: {bootFileName: x}}
      networks: [{name: default, pod: {}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
`

func TestImport(t *testing.T) {
	out, notes, err := Import([]byte(machine))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range notes {
		word := "changed "
		if n.Lost {
			word = "lost "
		}
		got = append(got, word+n.Object+" "+n.Field)
	}
	want := []string{
		"lost VirtualMachine vms/web metadata.annotations[vm.kubevirt.io/os]",
		"lost VirtualMachine vms/web spec.dataVolumeTemplates",
		"changed VirtualMachine vms/web spec.running",
		"changed VirtualMachine vms/web spec.template.spec.evictionStrategy",
		"changed VirtualMachine vms/web spec.template.spec.domain.devices.interfaces[0].masquerade",
		"changed VirtualMachine vms/web spec.template.spec.domain.devices.interfaces[0].ports",
		"lost VirtualMachine vms/web spec.template.spec.domain.cpu.realtime",
		"lost VirtualMachine vms/web spec.template.spec.domain.devices.inputs",
		"lost VirtualMachine vms/web spec.template.spec.domain.devices.interfaces[0].dhcpOptions",
		"lost VirtualMachine vms/web spec.template.spec.domain.launchSecurity",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	docs := strings.Split(string(out), "---\n")[1:]
	if len(docs) != 2 || !strings.Contains(docs[1], "kind: ConfigMap") {
		t.Fatalf("the ConfigMap is not passed on:\n%s", out)
	}
	o, err := vmspec.DecodeObject([]byte(docs[0]))
	if err != nil {
		t.Fatalf("the result is not ours: %v\n%s", err, out)
	}
	if o.Name != "web" || o.Namespace != "vms" || o.Kind != "VirtualMachine" {
		t.Errorf("%s %s/%s", o.Kind, o.Namespace, o.Name)
	}
	if err := vmspec.Validate(o.Spec); err != nil {
		t.Error(err)
	}
	if o.Spec.Domain.Devices.Interfaces[0].Passt == nil || o.Spec.Domain.Devices.GPUs[0].DeviceName != "nvidia.com/A100" {
		t.Errorf("devices: %+v", o.Spec.Domain.Devices)
	}
}

func TestImportRefuses(t *testing.T) {
	for _, text := range []string{
		"a: [", "- a\n- b\n", "a: {b: 1}}",
		"kind: List\nitems: [1]",
		"apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nspec: []",
		"apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nspec: {template: x}",
	} {
		if _, _, err := Import([]byte(text)); !errors.Is(err, ErrManifest) {
			t.Errorf("%q: error = %v", text, err)
		}
	}
}

// KubeVirt's own examples, where REALDATA has them: what comes out is ours, and
// whatever does not come out is named.
func TestImportExamples(t *testing.T) {
	root := os.Getenv("REALDATA")
	if root == "" {
		t.Skip("REALDATA names no folder with public examples")
	}
	files, err := filepath.Glob(filepath.Join(root, "kubevirt/examples/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s (%v)", root, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := Import(text)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		for _, doc := range ours(out) {
			if _, err := vmspec.DecodeObject([]byte(doc)); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
}

// ours are the documents of a result that are not passed on from others.
func ours(out []byte) []string {
	var docs []string
	for _, doc := range strings.Split("\n"+string(out), "\n---\n") {
		if strings.HasPrefix(doc, "apiVersion: kubevfio.io/") {
			docs = append(docs, doc)
		}
	}
	return docs
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(machine))
	f.Add([]byte("apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nspec: {domain: {devices: {interfaces: [null, 1, {bridge: {}}]}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		out, notes, err := Import(text)
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Errorf("error of no class: %v", err)
			}
			return
		}
		lost := false
		for _, n := range notes {
			lost = lost || n.Lost
		}
		if len(out) == 0 || lost {
			return
		}
		for _, doc := range ours(out) {
			if _, err := vmspec.DecodeObject([]byte(doc)); err != nil {
				t.Errorf("nothing was lost, yet the result is refused: %v\n%s", err, doc)
			}
		}
	})
}
