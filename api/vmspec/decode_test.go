package vmspec

import (
	"errors"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	tests := map[string]struct {
		text string
		want string // in the error; empty: accepted
	}{
		"minimal":           {"domain: {memory: {guest: 1Gi}}", ""},
		"JSON":              {`{"domain":{"memory":{"guest":"1Gi"}}}`, ""},
		"unknown field":     {"domain: {memory: {guest: 1Gi}, devices: {gpu: []}}", `unknown field "domain.devices.gpu"`},
		"unknown in a list": {"domain: {devices: {gpus: [{name: a, devicename: b}]}}", `unknown field "domain.devices.gpus[0].devicename"`},
		"other case":        {"Domain: {}", `unknown field "Domain"`},
		"doubled field":     {"domain: {}\ndomain: {}\n", `"domain" already set`},
		"wrong type":        {"domain: {cpu: {cores: many}}", "cores"},
		"YAML's n":          {"domain: {devices: {gpus: [{name: n}]}}", "put the value in quotes"},
		"negative":          {"domain: {cpu: {cores: -1}}", "cores"},
		"bad quantity":      {"domain: {memory: {guest: much}}", "quantit"},
		"not YAML":          {"domain: [", "yaml"},
		"empty":             {" \n", "is empty"},
		"list":              {"[]", ""},
		"too long":          {strings.Repeat("#", MaxBytes+1), "at most"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(tc.text))
			if name == "list" {
				if err == nil {
					t.Error("a list is no spec")
				}
				return
			}
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q of class ErrInvalid", err, tc.want)
			}
		})
	}
}

func TestDecodeObject(t *testing.T) {
	const spec = "{domain: {memory: {guest: 1Gi}}}"
	tests := map[string]struct{ text, name, want string }{
		"bare":           {"domain: {memory: {guest: 1Gi}}", "", ""},
		"instance":       {"apiVersion: kubevfio.io/v1alpha1\nkind: VirtualMachineInstance\nmetadata: {name: a}\nspec: " + spec, "a", ""},
		"machine":        {"apiVersion: kubevfio.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: b}\nspec: {runStrategy: Always, template: {spec: " + spec + "}}", "b", ""},
		"KubeVirt's":     {"apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nspec: {}", "", "apiVersion"},
		"pod":            {"apiVersion: v1\nkind: Pod\nmetadata: {name: c, annotations: {kubevfio.io/vm: \"" + spec + "\"}}\nspec: {containers: []}", "c", ""},
		"pod without VM": {"apiVersion: v1\nkind: Pod\nmetadata: {name: c}\nspec: {containers: []}", "", "kubevfio.io/vm"},
		"another kind":   {"apiVersion: kubevfio.io/v1alpha1\nkind: DevicePool\nspec: {}", "", "kind"},
		"unknown within": {"apiVersion: kubevfio.io/v1alpha1\nkind: VirtualMachineInstance\nmetadata: {name: a}\nspec: {domain: {chips: 1}}", "", `unknown field "spec.domain.chips"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := DecodeObject([]byte(tc.text))
			if tc.want != "" {
				if err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o.Name != tc.name || o.Spec.Domain.Memory.Guest.String() != "1Gi" {
				t.Errorf("got %+v", o)
			}
		})
	}
}
