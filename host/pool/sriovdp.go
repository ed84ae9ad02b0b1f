package pool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// ErrSRIOVDP is the class of errors about a configuration of the SR-IOV network
// device plugin that cannot be converted; each names the field.
var ErrSRIOVDP = errors.New("cannot convert the SR-IOV device plugin's configuration")

// sriovdpPrefix is the plugin's default resource prefix.
const sriovdpPrefix = "intel.com"

// sriovdpResource is an entry of resourceList.
type sriovdpResource struct {
	ResourceName    string          `json:"resourceName"`
	ResourcePrefix  string          `json:"resourcePrefix"`
	DeviceType      string          `json:"deviceType"`
	ExcludeTopology bool            `json:"excludeTopology"`
	Selectors       json.RawMessage `json:"selectors"`
	AdditionalInfo  json.RawMessage `json:"additionalInfo"`
}

// FromSRIOVDP converts the plugin's JSON, or a ConfigMap that holds it, to
// pools. The first resource of the list that selects a device has it there, so
// priorities fall in the order of the list. Errors are of class [ErrSRIOVDP].
func FromSRIOVDP(b []byte) ([]v1alpha1.DevicePool, error) {
	b, err := fromConfigMap(b)
	if err != nil {
		return nil, err
	}
	var top struct {
		ResourceList []json.RawMessage `json:"resourceList"`
	}
	if err := strict(b, &top); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSRIOVDP, err)
	}
	if len(top.ResourceList) == 0 {
		return nil, fmt.Errorf("%w: resourceList: it is empty or not there", ErrSRIOVDP)
	}
	names := map[string]int{}
	pools := make([]v1alpha1.DevicePool, 0, len(top.ResourceList))
	for i, raw := range top.ResourceList {
		p, err := fromResource(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: resourceList[%d]%w", ErrSRIOVDP, i, err)
		}
		if len(top.ResourceList) > 1 {
			p.Spec.Priority = int32(len(top.ResourceList) - i)
		}
		if n := names[p.Name]; n > 0 {
			p.Name = fmt.Sprintf("%s-%d", p.Name, n+1)
		}
		names[p.Name]++
		pools = append(pools, p)
	}
	return pools, nil
}

// strict decodes one JSON value and refuses fields that are not known.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the JSON value")
	}
	return nil
}

// fromConfigMap gives the JSON in a ConfigMap, and other input as it is.
func fromConfigMap(b []byte) ([]byte, error) {
	var cm struct {
		Kind string            `json:"kind"`
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(b, &cm); err != nil || cm.Kind != "ConfigMap" {
		return b, nil //nolint:nilerr // not a ConfigMap: the JSON decoder says what is wrong
	}
	if len(cm.Data) != 1 {
		return nil, fmt.Errorf("%w: the ConfigMap has %d keys (%s): give the JSON of one", ErrSRIOVDP, len(cm.Data),
			strings.Join(slices.Sorted(maps.Keys(cm.Data)), ", "))
	}
	for _, v := range cm.Data {
		b = []byte(v)
	}
	return b, nil
}

// invalidInName is what a Kubernetes object's name cannot have.
var invalidInName = regexp.MustCompile(`[^a-z0-9]+`)

// resourceName is the rule of DevicePool.spec.resourceName.
var resourceName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)

func fromResource(raw json.RawMessage) (v1alpha1.DevicePool, error) {
	var p v1alpha1.DevicePool
	var r sriovdpResource
	if err := strict(raw, &r); err != nil {
		return p, fmt.Errorf(": %w", err)
	}
	if r.ResourceName == "" {
		return p, errors.New(".resourceName: it is empty")
	}
	if r.ResourcePrefix == "" {
		r.ResourcePrefix = sriovdpPrefix
	}
	if !isEmpty(r.AdditionalInfo) {
		return p, errors.New(".additionalInfo: environment of single devices cannot be carried over; remove it")
	}
	var class string
	switch r.DeviceType {
	case "", "netDevice":
		class = "02"
	case "accelerator":
		class = "12"
	default:
		return p, fmt.Errorf(".deviceType: %q has no counterpart: only PCI functions can be given to virtual machines", r.DeviceType)
	}
	full := r.ResourcePrefix + "/" + r.ResourceName
	if !resourceName.MatchString(full) {
		return p, fmt.Errorf(".resourceName: %q is no extended resource name with a domain", full)
	}
	p.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.Group + "/" + v1alpha1.Version, Kind: "DevicePool"}
	p.Name = strings.Trim(invalidInName.ReplaceAllString(strings.ToLower(r.ResourceName), "-"), "-")
	p.Spec.ResourceName = full
	if r.ExcludeTopology {
		off := false
		p.Spec.TopologyHints = &off
	}
	sels, err := selectorsOf(&r)
	if err != nil {
		return p, err
	}
	vfio := true
	for i, s := range sels {
		out, err := fromSelector(s, class)
		if err != nil {
			if len(sels) > 1 || bytes.HasPrefix(bytes.TrimSpace(r.Selectors), []byte{'['}) {
				return p, fmt.Errorf(".selectors[%d]%w", i, err)
			}
			return p, fmt.Errorf(".selectors%w", err)
		}
		vfio = vfio && len(out.Drivers) > 0 && !slices.ContainsFunc(out.Drivers, func(d string) bool { return !topology.IsVFIODriver(d) })
		p.Spec.Selectors = append(p.Spec.Selectors, out)
	}
	p.Spec.Driver = DriverDefault
	if vfio {
		// The plugin took what an administrator had bound; so do we.
		p.Spec.Driver = DriverKeep
	}
	return p, nil
}

func isEmpty(raw json.RawMessage) bool {
	switch strings.Join(strings.Fields(string(raw)), "") {
	case "", "null", "{}", "[]":
		return true
	}
	return false
}

// selectorsOf gives the selectors, which are an object or a list of them.
func selectorsOf(r *sriovdpResource) ([]json.RawMessage, error) {
	raw := bytes.TrimSpace(r.Selectors)
	if isEmpty(raw) {
		return []json.RawMessage{json.RawMessage("{}")}, nil
	}
	if raw[0] == '{' {
		return []json.RawMessage{raw}, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf(".selectors: %w", err)
	}
	return list, nil
}

// fromSelector converts one selector, field by field, so that errors name the
// field.
func fromSelector(raw json.RawMessage, class string) (v1alpha1.DeviceSelector, error) {
	s := v1alpha1.DeviceSelector{Classes: []string{class}}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return s, fmt.Errorf(": %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		v := fields[name]
		var to *[]string
		switch name {
		case "vendors":
			to = &s.Vendors
		case "devices":
			to = &s.Devices
		case "drivers":
			to = &s.Drivers
		case "pciAddresses":
			to = &s.Addresses
		case "pfNames":
			to = &s.PFNames
		case "rootDevices":
			to = &s.RootDevices
		case "isRdma", "needVhostNet":
			var on bool
			if err := json.Unmarshal(v, &on); err != nil {
				return s, fmt.Errorf(".%s: %w", name, err)
			}
			if on {
				return s, fmt.Errorf(".%s: it has no counterpart for devices that virtual machines get whole", name)
			}
			continue
		case "acpiIndexes", "linkTypes", "ddpProfiles", "pKeys", "vdpaType", "auxTypes":
			if isEmpty(v) || string(bytes.TrimSpace(v)) == `""` {
				continue
			}
			return s, fmt.Errorf(".%s: DevicePool has no such selector; select by address, PF name or root device", name)
		default:
			return s, fmt.Errorf(".%s: no such selector in the plugin", name)
		}
		if err := json.Unmarshal(v, to); err != nil {
			return s, fmt.Errorf(".%s: %w", name, err)
		}
	}
	if _, err := newMatcher(&s); err != nil {
		if len(s.Addresses) > 0 && strings.HasPrefix(err.Error(), "addresses:") {
			return s, fmt.Errorf(".pciAddresses: %w", errors.Unwrap(err)) // its name in the input
		}
		return s, fmt.Errorf(".%w", err)
	}
	return s, nil
}

// WriteYAML writes pools as a stream of YAML documents.
func WriteYAML(w io.Writer, pools []v1alpha1.DevicePool) error {
	for i := range pools {
		p := &pools[i]
		// Only what a user writes: no status, no creation time.
		doc := map[string]any{
			"apiVersion": p.APIVersion, "kind": p.Kind,
			"metadata": map[string]string{"name": p.Name},
			"spec":     p.Spec,
		}
		b, err := yaml.Marshal(doc)
		if err != nil {
			return fmt.Errorf("encode pool %s: %w", p.Name, err)
		}
		note := ""
		if p.Spec.Driver == DriverDefault {
			note = "# The agent binds these devices to vfio-pci: containers that use the kernel's driver lose them.\n"
		}
		if _, err := fmt.Fprintf(w, "---\n%s%s", note, b); err != nil {
			return err
		}
	}
	return nil
}
