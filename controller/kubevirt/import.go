package kubevirt

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

// ErrManifest is the class of errors about files that cannot be read at all.
var ErrManifest = errors.New("cannot read the manifest")

// Note is one thing that is not as it was.
type Note struct {
	// Object is "KIND NAMESPACE/NAME", Field the path in KubeVirt's object.
	Object string `json:"object"`
	Field  string `json:"field"`
	// What happened.
	What string `json:"what"`
	// Lost: the field was not carried. Otherwise it was replaced by an equal.
	Lost bool `json:"lost"`
}

// String is one line for people.
func (n Note) String() string { return fmt.Sprintf("%s: %s: %s", n.Object, n.Field, n.What) }

// Import reads a YAML stream of KubeVirt's objects and returns ours as YAML, with
// notes about everything that is not as it was. Errors are of class [ErrManifest].
func Import(text []byte) (out []byte, notes []Note, err error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, notes, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		var object map[string]any
		if err := yaml.Unmarshal(doc, &object); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		if len(object) == 0 {
			continue
		}
		c := &conversion{}
		result, err := c.object(object)
		if err != nil {
			return nil, nil, err
		}
		notes = append(notes, c.notes...)
		if result == nil {
			continue
		}
		b, err := yaml.Marshal(result)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		out = append(append(out, "---\n"...), b...)
	}
}

// conversion is the work on one object.
type conversion struct {
	name  string
	notes []Note
}

func (c *conversion) lose(field, what string) {
	c.notes = append(c.notes, Note{Object: c.name, Field: field, What: what, Lost: true})
}

func (c *conversion) change(field, what string) {
	c.notes = append(c.notes, Note{Object: c.name, Field: field, What: what})
}

// object converts one object; nil when it is none of ours.
func (c *conversion) object(o map[string]any) (map[string]any, error) {
	kind, _ := o["kind"].(string)
	apiVersion, _ := o["apiVersion"].(string)
	meta := asMap(o["metadata"])
	name, _ := meta["name"].(string)
	if name == "" {
		name, _ = meta["generateName"].(string)
	}
	c.name = kind + " " + name
	if ns, _ := meta["namespace"].(string); ns != "" {
		c.name = kind + " " + ns + "/" + name
	}
	group, _, _ := strings.Cut(apiVersion, "/")
	if group != "kubevirt.io" || (kind != "VirtualMachine" && kind != "VirtualMachineInstance") {
		c.lose("kind", fmt.Sprintf("objects of %s %s are not imported", apiVersion, kind))
		return nil, nil
	}
	result := map[string]any{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": kind, "metadata": c.metadata(meta),
	}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		switch key {
		case "apiVersion", "kind", "metadata", "spec", "status":
		default:
			c.lose(key, "unknown field")
		}
	}
	spec := asMap(o["spec"])
	var err error
	if kind == "VirtualMachine" {
		result["spec"], err = c.machine(spec)
	} else {
		result["spec"], err = c.instance(spec, "spec")
	}
	return result, err
}

// metadata keeps what an author writes.
func (c *conversion) metadata(m map[string]any) map[string]any {
	kept := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		switch k {
		case "name", "generateName", "namespace", "labels":
			kept[k] = m[k]
		case "annotations":
			annotations := maps.Clone(asMap(m[k]))
			for a := range annotations {
				if strings.HasPrefix(a, "kubectl.kubernetes.io/") {
					delete(annotations, a)
				}
				if strings.HasPrefix(a, "kubevirt.io/") || strings.Contains(a, ".kubevirt.io/") {
					delete(annotations, a)
					c.lose("metadata.annotations["+a+"]", "means nothing here")
				}
			}
			if len(annotations) > 0 {
				kept[k] = annotations
			}
		case "creationTimestamp", "resourceVersion", "uid", "generation", "managedFields", "selfLink":
			// The API server's, not the author's.
		default:
			c.lose("metadata."+k, "is not carried")
		}
	}
	return kept
}

func (c *conversion) machine(spec map[string]any) (map[string]any, error) {
	result := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(spec)) {
		switch k {
		case "template":
		case "runStrategy":
			result[k] = spec[k]
			if s, _ := spec[k].(string); s == "WaitAsReceiver" {
				c.lose("spec.runStrategy", "WaitAsReceiver belongs to live migration; Halted is written")
				result[k] = string(v1alpha1.RunHalted)
			}
		case "running":
			strategy := v1alpha1.RunHalted
			if on, _ := spec[k].(bool); on {
				strategy = v1alpha1.RunAlways
			}
			result["runStrategy"] = string(strategy)
			c.change("spec.running", "is runStrategy "+string(strategy)+" now")
		default:
			c.lose("spec."+k, "is not supported")
		}
	}
	if result["runStrategy"] == nil {
		result["runStrategy"] = string(v1alpha1.RunHalted)
		c.change("spec.runStrategy", "is not given; Halted is written")
	}
	template := asMap(spec["template"])
	inner, err := c.instance(asMap(template["spec"]), "spec.template.spec")
	if err != nil {
		return nil, err
	}
	t := map[string]any{"spec": inner}
	if m := c.templateMeta(asMap(template["metadata"])); len(m) > 0 {
		t["metadata"] = m
	}
	result["template"] = t
	return result, nil
}

func (c *conversion) templateMeta(m map[string]any) map[string]any {
	kept := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		switch k {
		case "labels", "annotations":
			kept[k] = m[k]
		case "creationTimestamp":
		default:
			c.lose("spec.template.metadata."+k, "is not carried")
		}
	}
	return kept
}

// instance converts a VirtualMachineInstance spec.
func (c *conversion) instance(spec map[string]any, at string) (map[string]any, error) {
	c.translate(spec, at)
	kept := c.keep(spec, specType(), at)
	// What our schema has may still be wrong here: say it now, not at apply.
	b, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	typed, err := vmspec.Decode(b)
	if err == nil {
		err = vmspec.Validate(typed)
	}
	if err != nil {
		c.lose(at, "the result is not valid yet: "+err.Error())
	}
	m, _ := kept.(map[string]any)
	return m, nil
}

// translate replaces what has an equal of another name.
func (c *conversion) translate(spec map[string]any, at string) {
	devices := asMap(asMap(spec["domain"])["devices"])
	for i, v := range asList(devices["interfaces"]) {
		iface := asMap(v)
		for _, binding := range []string{"masquerade", "bridge"} {
			if _, ok := iface[binding]; ok {
				delete(iface, binding)
				iface["passt"] = map[string]any{}
				c.change(fmt.Sprintf("%s.domain.devices.interfaces[%d].%s", at, i, binding), "is passt now, which needs no privileges")
			}
		}
	}
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func asList(v any) []any {
	l, _ := v.([]any)
	return l
}
