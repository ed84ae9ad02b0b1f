package crdschema

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/controller/kubevirt"
	"github.com/kubevfio/kubevfio/test/integration/apiserver"
)

// manifests are files with KubeVirt's objects: ours, and public ones where REALDATA
// has them.
func manifests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(checkout, "controller/kubevirt/testdata/shapes/*.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	if root := os.Getenv("REALDATA"); root != "" {
		more, err := filepath.Glob(filepath.Join(root, "kubevirt/*/*.yaml"))
		if err != nil || len(more) == 0 {
			t.Fatalf("no examples in %s (%v)", root, err)
		}
		files = append(files, more...)
	}
	return files
}

// What import writes is taken by the API server, or import has named what is
// wrong with it and the API server names it, too.
func TestImportedObjectsApply(t *testing.T) {
	all := schemas(t)
	taken := 0
	for _, f := range manifests(t) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out, notes, err := kubevirt.Import(text)
			if err != nil {
				t.Fatal(err)
			}
			invalid := false
			for _, n := range notes {
				invalid = invalid || strings.Contains(n.What, "is not valid yet")
			}
			objects, err := apiserver.Decode(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if o.GroupVersionKind().Group != "kubevfio.io" {
					continue
				}
				o.SetNamespace(namespace)
				err := all[o.GetKind()].Create(t.Context(), o.Object)
				switch {
				case err == nil && !invalid:
					taken++
				case err == nil:
					t.Errorf("%s %s: import says that it is not valid, the API server takes it", o.GetKind(), o.GetName())
				case !invalid:
					t.Errorf("%s %s: import found nothing wrong, the API server says %v", o.GetKind(), o.GetName(), err)
				case !strings.Contains(err.Error(), "spec"):
					t.Errorf("%s %s: the refusal names no field: %v", o.GetKind(), o.GetName(), err)
				}
			}
		})
	}
	if taken < 5 {
		t.Errorf("%d objects were taken", taken)
	}
}

// A manifest of KubeVirt's with nothing but its apiVersion changed: taken, or
// refused by field name. What is taken is stored with every field that was sent.
func TestKubeVirtManifestsApply(t *testing.T) {
	all := schemas(t)
	for _, f := range manifests(t) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := apiserver.Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if o.GetKind() != "VirtualMachine" && o.GetKind() != "VirtualMachineInstance" {
					continue
				}
				o.SetAPIVersion("kubevfio.io/v1alpha1")
				o.SetNamespace(namespace)
				sent := o.DeepCopy()
				err := all[o.GetKind()].Create(t.Context(), o.Object)
				switch {
				case err == nil:
					contained(t, "spec", sent.Object["spec"], o.Object["spec"])
				case !strings.Contains(err.Error(), "spec"):
					t.Errorf("%s %s: the refusal names no field: %v", o.GetKind(), o.GetName(), err)
				}
			}
		})
	}
}

// contained holds that all that was sent is there.
func contained(t *testing.T, at string, sent, got any) {
	t.Helper()
	switch s := sent.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s: %v is stored as %v", at, sent, got)
			return
		}
		for k := range s {
			contained(t, at+"."+k, s[k], g[k])
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(s) {
			t.Errorf("%s: %v is stored as %v", at, sent, got)
			return
		}
		for i := range s {
			contained(t, at, s[i], g[i])
		}
	default:
		if got == nil && sent != nil {
			t.Errorf("%s: %v is lost", at, sent)
		}
	}
}
