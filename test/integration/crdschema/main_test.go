package crdschema

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	checkout  = "../../.."
	namespace = "vms"
)

// schemas reads the definitions once per test: it takes a second.
func schemas(t *testing.T) map[string]*Schema {
	t.Helper()
	s, err := Load(checkout)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The definitions themselves are what an API server takes.
func TestDefinitions(t *testing.T) {
	all := schemas(t)
	if len(all) < 5 {
		t.Fatalf("%d definitions", len(all))
	}
	for kind, s := range all {
		if err := s.Definition(t.Context()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// The columns of kubectl get, in their order; the first is always NAME.
func TestColumns(t *testing.T) {
	all := schemas(t)
	for kind, want := range map[string][2]string{
		"VirtualMachine":         {"Age Status Ready Devices", "Strategy Node"},
		"VirtualMachineInstance": {"Age Phase IP Node Devices Ready", "Addresses Alignment Pod Reason"},
	} {
		var always, wide []string
		for _, c := range all[kind].columns {
			if c.Priority == 0 {
				always = append(always, c.Name)
			} else {
				wide = append(wide, c.Name)
			}
		}
		if diff := cmp.Diff(want, [2]string{strings.Join(always, " "), strings.Join(wide, " ")}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
	}
	if got := all["VirtualMachine"].definition.Spec.Names.ShortNames; len(got) != 1 || got[0] != "kvm" {
		t.Errorf("short names %v", got)
	}
	if got := all["VirtualMachineInstance"].definition.Spec.Names.ShortNames; len(got) != 1 || got[0] != "kvmi" {
		t.Errorf("short names %v", got)
	}
}

func instanceOf(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	// By the decoder that the API server uses: whole numbers are int64.
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON([]byte(`{"apiVersion":"kubevfio.io/v1alpha1","kind":"VirtualMachineInstance","metadata":{"name":"test","namespace":"` + namespace + `"},"spec":` + string(b) + `}`)); err != nil {
		t.Fatal(err)
	}
	return o
}

func machineOf(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	o := instanceOf(t, spec)
	o.SetKind("VirtualMachine")
	o.Object["spec"] = map[string]any{"runStrategy": "Always", "template": map[string]any{"spec": o.Object["spec"]}}
	return o
}
