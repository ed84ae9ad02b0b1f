package admission

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// Every example is accepted under strict field validation in a namespace that
// enforces the restricted Pod Security Standard.
func TestExamplesAreAccepted(t *testing.T) {
	folders, err := os.ReadDir(filepath.Join(server.Checkout, "manifests/examples"))
	if err != nil {
		t.Fatal(err)
	}
	c := client.WithFieldValidation(server.Admin, "Strict")
	tested := 0
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		t.Run(f.Name(), func(t *testing.T) {
			objects, err := server.Kustomize("manifests/examples/" + f.Name())
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if o.GetKind() != "Namespace" && o.GetNamespace() != namespace {
					t.Errorf("%s %s is in namespace %q", o.GetKind(), o.GetName(), o.GetNamespace())
				}
				if err := c.Create(t.Context(), o, client.DryRunAll); err != nil && !apierrors.IsAlreadyExists(err) {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
				tested++
			}
		})
	}
	if tested < 8 {
		t.Errorf("only %d objects were tested", tested)
	}
}

// The other overlays are tried whole, without being kept.
func TestOverlaysAreAccepted(t *testing.T) {
	c := client.WithFieldValidation(server.Admin, "Strict")
	for _, path := range []string{"manifests/overlays/default"} {
		t.Run(path, func(t *testing.T) {
			objects, err := server.Kustomize(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if err := c.Create(t.Context(), o, client.DryRunAll); err != nil && !apierrors.IsAlreadyExists(err) {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
			}
		})
	}
}

// The restricted standard is really in force: the test above would otherwise show nothing.
func TestNamespaceIsRestricted(t *testing.T) {
	p := newPod("privileged")
	p.Spec.Containers[0].SecurityContext = nil
	err := server.Admin.Create(t.Context(), p, client.DryRunAll)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("error = %v; want a refusal by PodSecurity", err)
	}
}

func TestDevicePoolValidation(t *testing.T) {
	type spec = map[string]any
	selectors := []any{map[string]any{"vendors": []any{"10de"}}}
	cases := map[string]struct {
		spec    spec
		message string // empty: accepted
	}{
		"least":                    {spec{"resourceName": "example.com/gpu", "selectors": selectors}, ""},
		"slot":                     {spec{"resourceName": "devices.kubevfio.io/kvm", "slot": spec{"hostPath": "/dev/kvm"}}, ""},
		"VFs":                      {spec{"resourceName": "example.com/vf", "selectors": selectors, "vfs": spec{"count": int64(8)}}, ""},
		"address of a big domain":  {spec{"resourceName": "example.com/vf", "selectors": []any{spec{"addresses": []any{"10000:01:00.0"}}}}, ""},
		"no selectors and no slot": {spec{"resourceName": "example.com/gpu"}, "exactly one of spec.selectors"},
		"selectors and slot": {spec{"resourceName": "example.com/gpu", "selectors": selectors, "slot": spec{"hostPath": "/dev/kvm"}},
			"exactly one of spec.selectors"},
		"empty selectors":   {spec{"resourceName": "example.com/gpu", "selectors": []any{}}, "should have at least 1 items"},
		"empty selector":    {spec{"resourceName": "example.com/gpu", "selectors": []any{spec{}}}, "at least 1 properties"},
		"VFs of a slot":     {spec{"resourceName": "example.com/kvm", "slot": spec{"hostPath": "/dev/kvm"}, "vfs": spec{"count": int64(1)}}, "spec.vfs needs spec.selectors"},
		"negative VFs":      {spec{"resourceName": "example.com/vf", "selectors": selectors, "vfs": spec{"count": int64(-1)}}, "spec.vfs.count"},
		"no domain":         {spec{"resourceName": "gpu", "selectors": selectors}, "spec.resourceName"},
		"upper case domain": {spec{"resourceName": "Example.com/gpu", "selectors": selectors}, "spec.resourceName"},
		"kubernetes.io":     {spec{"resourceName": "kubernetes.io/gpu", "selectors": selectors}, "the kubernetes.io domain is reserved"},
		"x.kubernetes.io":   {spec{"resourceName": "x.kubernetes.io/gpu", "selectors": selectors}, "the kubernetes.io domain is reserved"},
		"no resource name":  {spec{"selectors": selectors}, "spec.resourceName"},
		"vendor not hex":    {spec{"resourceName": "example.com/gpu", "selectors": []any{spec{"vendors": []any{"nvidia"}}}}, "spec.selectors[0].vendors"},
		"vendor with 0x":    {spec{"resourceName": "example.com/gpu", "selectors": []any{spec{"vendors": []any{"0x10de"}}}}, "spec.selectors[0].vendors"},
		"class of 3 digits": {spec{"resourceName": "example.com/gpu", "selectors": []any{spec{"classes": []any{"030"}}}}, "spec.selectors[0].classes"},
		"short address":     {spec{"resourceName": "example.com/gpu", "selectors": []any{spec{"addresses": []any{"81:00.0"}}}}, "spec.selectors[0].addresses"},
		"function 8":        {spec{"resourceName": "example.com/gpu", "selectors": []any{spec{"addresses": []any{"0000:81:00.8"}}}}, "spec.selectors[0].addresses"},
		"driver path":       {spec{"resourceName": "example.com/gpu", "selectors": selectors, "driver": "../nvidia"}, "spec.driver"},
		"companions":        {spec{"resourceName": "example.com/gpu", "selectors": selectors, "companions": "Ignore"}, "spec.companions"},
		"mode":              {spec{"resourceName": "example.com/gpu", "selectors": selectors, "mode": "strict"}, "spec.mode"},
		"reset":             {spec{"resourceName": "example.com/gpu", "selectors": selectors, "reset": "Bus"}, "spec.reset"},
		"slot path":         {spec{"resourceName": "example.com/kvm", "slot": spec{"hostPath": "/dev/../etc/shadow"}}, "spec.slot.hostPath"},
		"slot of a folder":  {spec{"resourceName": "example.com/kvm", "slot": spec{"hostPath": "/etc/passwd"}}, "spec.slot.hostPath"},
		"no slots":          {spec{"resourceName": "example.com/kvm", "slot": spec{"hostPath": "/dev/kvm", "count": int64(0)}}, "spec.slot.count"},
		"unknown field":     {spec{"resourceName": "example.com/gpu", "selectors": selectors, "numVfs": int64(4)}, `unknown field "spec.numVfs"`},
	}
	c := client.WithFieldValidation(server.Admin, "Strict")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "kubevfio.io/v1alpha1", "kind": "DevicePool",
				"metadata": map[string]any{"name": "test"}, "spec": tc.spec,
			}}
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

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(server.Checkout, path))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
