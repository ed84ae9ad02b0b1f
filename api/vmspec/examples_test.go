package vmspec

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// TestExamples reads every VM in manifests/examples; those in bad-spec must be
// refused, all others accepted.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../manifests/examples/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	n := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var pod struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		}
		if err := yaml.Unmarshal(text, &pod); err != nil {
			continue // more than one document, or a list
		}
		if v := pod.Metadata.Annotations[v1alpha1.VMAnnotation]; pod.Kind == "Pod" && v != "" {
			n++
			spec, err := Decode([]byte(v))
			if err == nil {
				err = Validate(spec)
			}
			bad := filepath.Base(filepath.Dir(f)) == "bad-spec"
			if (err != nil) != bad {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
	if n == 0 {
		t.Error("no pod with a VM among the examples")
	}
}
