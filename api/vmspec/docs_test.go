package vmspec

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// TestDocs reads every YAML example of the field reference.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/user/vm-spec.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```yaml\n")[1:]
	if len(parts) < 6 {
		t.Fatalf("%d examples", len(parts))
	}
	for i, p := range parts {
		example, _, _ := strings.Cut(p, "```")
		spec, err := Decode([]byte(example))
		if err == nil {
			err = Validate(spec)
		}
		if err != nil {
			t.Errorf("example %d: %v\n%s", i, err, example)
		}
	}
}

// TestDocsComplete holds that every field of the devices is named in the page.
func TestDocsComplete(t *testing.T) {
	text, err := os.ReadFile("../../docs/user/vm-spec.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range fieldNames() {
		if !strings.Contains(string(text), field) {
			t.Errorf("docs/user/vm-spec.md does not name %s", field)
		}
	}
}

// fieldNames are the JSON names of the devices' and the domain's fields.
func fieldNames() []string {
	var out []string
	for _, v := range []any{v1alpha1.Devices{}, v1alpha1.DomainSpec{}, v1alpha1.VirtualMachineInstanceSpec{}, v1alpha1.HostDeviceOptions{}, v1alpha1.CPU{}, v1alpha1.VolumeSource{}} {
		t := reflect.TypeOf(v)
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}
