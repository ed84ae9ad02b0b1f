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
	"github.com/kubevfio/kubevfio/controller/launcherpod"
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

// Import reads a YAML or JSON stream of KubeVirt's objects and returns ours as
// YAML, with notes about everything that is not as it was. Lists are taken apart.
// Objects that are not KubeVirt's, such as the Secrets of its machines, are passed
// on as they are. Errors are of class [ErrManifest].
func Import(text []byte) (out []byte, notes []Note, err error) {
	objects, err := read(text)
	if err != nil {
		return nil, nil, err
	}
	resources := sriovResources(objects)
	for _, o := range objects {
		c := &conversion{resources: resources}
		result, err := c.object(o)
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
	return out, notes, nil
}

// read splits a stream into objects.
func read(text []byte) ([]map[string]any, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var objects []map[string]any
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		var object map[string]any
		if err := yaml.Unmarshal(doc, &object); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		if len(object) == 0 {
			continue // comments only
		}
		list, err := flatten(object, 0)
		if err != nil {
			return nil, err
		}
		objects = append(objects, list...)
	}
}

// flatten takes lists apart, as `kubectl get -o yaml` writes them.
func flatten(o map[string]any, depth int) ([]map[string]any, error) {
	kind, _ := o["kind"].(string)
	items, isList := o["items"].([]any)
	if !strings.HasSuffix(kind, "List") || !isList {
		return []map[string]any{o}, nil
	}
	if depth > 4 {
		return nil, fmt.Errorf("%w: lists within lists", ErrManifest)
	}
	var all []map[string]any
	for i, v := range items {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%w: items[%d] of the %s is no object", ErrManifest, i, kind)
		}
		list, err := flatten(m, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// sriovResources are the resources of the stream's NetworkAttachmentDefinitions,
// by "name" and "namespace/name".
func sriovResources(objects []map[string]any) map[string]string {
	found := map[string]string{}
	for _, o := range objects {
		if kind, _ := o["kind"].(string); kind != "NetworkAttachmentDefinition" {
			continue
		}
		meta := asMap(o["metadata"])
		resource, _ := asMap(meta["annotations"])["k8s.v1.cni.cncf.io/resourceName"].(string)
		name, _ := meta["name"].(string)
		if resource == "" || name == "" {
			continue
		}
		found[name] = resource
		if ns, _ := meta["namespace"].(string); ns != "" {
			found[ns+"/"+name] = resource
		}
	}
	return found
}

// conversion is the work on one object.
type conversion struct {
	name  string
	notes []Note
	// resources of Multus networks that the stream defines.
	resources map[string]string
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
	switch {
	case group != "kubevirt.io" && !strings.HasSuffix(group, ".kubevirt.io"):
		if kind == "" || apiVersion == "" {
			c.lose("kind", "is not an object of Kubernetes: kind and apiVersion are missing")
			return nil, nil
		}
		return o, nil
	case group != "kubevirt.io" || (kind != "VirtualMachine" && kind != "VirtualMachineInstance"):
		c.lose("kind", refusedKind(kind, apiVersion))
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
	for _, field := range []string{"metadata", "spec"} {
		if _, ok := o[field].(map[string]any); !ok && o[field] != nil {
			return nil, fmt.Errorf("%w: %s: %s is not an object", ErrManifest, c.name, field)
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
			if a := c.annotations(asMap(m[k]), "metadata"); len(a) > 0 {
				kept[k] = a
			}
		case "creationTimestamp", "resourceVersion", "uid", "generation", "managedFields", "selfLink":
			// The API server's, not the author's.
		default:
			c.lose("metadata."+k, "is not carried")
		}
	}
	return kept
}

// annotations keeps those that do not speak to KubeVirt or kubectl.
func (c *conversion) annotations(from map[string]any, at string) map[string]any {
	kept := map[string]any{}
	for _, a := range slices.Sorted(maps.Keys(from)) {
		group, _, _ := strings.Cut(a, "/")
		switch {
		case group == "kubectl.kubernetes.io":
		case group == "kubevirt.io" || strings.HasSuffix(group, ".kubevirt.io"):
			c.lose(at+".annotations["+a+"]", "means nothing here")
		default:
			kept[a] = from[a]
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
			if spec["runStrategy"] != nil {
				c.lose("spec.running", "is given together with runStrategy, which KubeVirt refuses; runStrategy is kept")
				continue
			}
			strategy := v1alpha1.RunHalted
			if on, _ := spec[k].(bool); on {
				strategy = v1alpha1.RunAlways
			}
			result["runStrategy"] = string(strategy)
			c.change("spec.running", "is runStrategy "+string(strategy)+" now")
		default:
			c.lose("spec."+k, refusedField(k))
		}
	}
	if result["runStrategy"] == nil {
		result["runStrategy"] = string(v1alpha1.RunHalted)
		c.change("spec.runStrategy", "is not given; Halted is written")
	}
	template, ok := spec["template"].(map[string]any)
	if !ok && spec["template"] != nil {
		return nil, fmt.Errorf("%w: %s: spec.template is not an object", ErrManifest, c.name)
	}
	for _, k := range slices.Sorted(maps.Keys(template)) {
		if k != "metadata" && k != "spec" {
			c.lose("spec.template."+k, "unknown field")
		}
		if _, ok := template[k].(map[string]any); !ok && template[k] != nil {
			c.lose("spec.template."+k, "is not an object")
		}
	}
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
		case "labels":
			kept[k] = m[k]
		case "annotations":
			if a := c.annotations(asMap(m[k]), "spec.template.metadata"); len(a) > 0 {
				kept[k] = a
			}
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
		// The same checks that the controller makes.
		vmi := &v1alpha1.VirtualMachineInstance{Spec: *typed}
		vmi.Name, vmi.UID = "import", "import"
		_, err = launcherpod.Build(vmi, launcherpod.Situation{Attempt: 1}, launcherpod.Options{Image: "launcher"})
	}
	if err != nil {
		c.lose(at, "the result is not valid yet: "+err.Error())
	}
	m, _ := kept.(map[string]any)
	return m, nil
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func asList(v any) []any {
	l, _ := v.([]any)
	return l
}
