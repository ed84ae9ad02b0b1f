package vmspec

import (
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// MaxBytes bounds the text of a spec: an annotation's size limit.
const MaxBytes = 256 << 10

// Decode reads a VirtualMachineInstance spec from YAML or JSON, strictly:
// unknown fields, fields given twice and text after the first document are
// errors of class [ErrInvalid] that name the field. It does not check the rules
// between fields, see [Validate].
func Decode(text []byte) (*v1alpha1.VirtualMachineInstanceSpec, error) {
	var spec v1alpha1.VirtualMachineInstanceSpec
	if err := strict(text, &spec); err != nil {
		return nil, err
	}
	return &spec, nil
}

// Object is a decoded VM of any of the forms that people keep in files.
type Object struct {
	// Kind is VirtualMachine, VirtualMachineInstance, Pod, or empty for a bare
	// spec.
	Kind string
	// Name and Namespace of the object, empty for a bare spec.
	Name, Namespace string
	// UID of the object where the file has it.
	UID  string
	Spec *v1alpha1.VirtualMachineInstanceSpec
}

// DecodeObject reads a VirtualMachineInstance, a VirtualMachine (its template),
// a Pod with the annotation kubevfio.io/vm, or a bare spec, strictly as [Decode].
func DecodeObject(text []byte) (*Object, error) {
	if len(text) > MaxBytes {
		return nil, tooLong(text)
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name, Namespace, UID string
			Annotations          map[string]string
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return nil, yamlError(err)
	}
	want := v1alpha1.Group + "/" + v1alpha1.Version
	switch {
	case head.Kind == "Pod" && head.APIVersion == "v1":
		text, ok := head.Metadata.Annotations[v1alpha1.VMAnnotation]
		if !ok {
			return nil, Errorf("metadata.annotations", "have no %s: the pod describes no VM", v1alpha1.VMAnnotation)
		}
		spec, err := Decode([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", v1alpha1.VMAnnotation, err)
		}
		return &Object{Kind: head.Kind, Name: head.Metadata.Name, Namespace: head.Metadata.Namespace, UID: head.Metadata.UID, Spec: spec}, nil
	case strings.HasPrefix(head.APIVersion, "kubevirt.io/"):
		return nil, Errorf("apiVersion", "is %q, want %q; 'kubectl vfio import' converts KubeVirt's manifests", head.APIVersion, want)
	case head.Kind != "" && head.APIVersion != want:
		return nil, Errorf("apiVersion", "is %q, want %q", head.APIVersion, want)
	}
	switch head.Kind {
	case "":
		spec, err := Decode(text)
		if err != nil {
			return nil, err
		}
		return &Object{Spec: spec}, nil
	case "VirtualMachineInstance":
		var o v1alpha1.VirtualMachineInstance
		if err := strict(text, &o); err != nil {
			return nil, err
		}
		return &Object{Kind: head.Kind, Name: o.Name, Namespace: o.Namespace, UID: string(o.UID), Spec: &o.Spec}, nil
	case "VirtualMachine":
		var o v1alpha1.VirtualMachine
		if err := strict(text, &o); err != nil {
			return nil, err
		}
		return &Object{Kind: head.Kind, Name: o.Name, Namespace: o.Namespace, UID: string(o.UID), Spec: &o.Spec.Template.Spec}, nil
	}
	return nil, Errorf("kind", "is %q, want VirtualMachine, VirtualMachineInstance or a bare spec", head.Kind)
}

func strict(text []byte, into any) error {
	if len(text) > MaxBytes {
		return tooLong(text)
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return Errorf("spec", "is empty")
	}
	js, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return yamlError(err)
	}
	// The API server's own decoder: names are told apart by case, and the
	// errors give the path.
	violations, err := json.UnmarshalStrict(js, into)
	if err != nil {
		return yamlError(err)
	}
	if len(violations) > 0 {
		return yamlError(violations[0])
	}
	return nil
}

func tooLong(text []byte) error {
	return Errorf("spec", "has %d bytes, at most %d are read", len(text), MaxBytes)
}

// yamlError keeps the cause's words, which name the field.
func yamlError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	msg = strings.TrimPrefix(msg, "json: ")
	if strings.HasPrefix(msg, "cannot unmarshal") && strings.HasSuffix(msg, "of type string") {
		// YAML reads y, n, yes, no, on, off and digits as something else.
		msg += "; put the value in quotes"
	}
	return fmt.Errorf("%w: %w", ErrInvalid, errors.New(msg))
}
