package vmspec

import (
	"errors"
	"testing"

	"sigs.k8s.io/yaml"
)

// FuzzDecode: decoding and checking never panic, and all errors are of the one
// class; what was accepted survives a round trip.
func FuzzDecode(f *testing.F) {
	f.Add("domain: {memory: {guest: 1Gi}}")
	f.Add("domain:\n  cpu: {cores: 4294967295, sockets: 4294967295}\n  memory: {guest: 1Gi}\n")
	f.Add("{}")
	f.Add("apiVersion: kubevfio.io/v1alpha1\nkind: VirtualMachine\nspec: {template: {spec: {domain: {memory: {guest: 1Gi}}}}}")
	f.Add("domain: {devices: {interfaces: [{name: a, passt: {}, ports: [{port: 22}]}], disks: [{name: d}]}}\nvolumes: [{name: d, emptyDisk: {capacity: 1e99}}]")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := DecodeObject([]byte(text)); err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v is of no class", err)
		}
		spec, err := Decode([]byte(text))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v is of no class", err)
			}
			return
		}
		if err := Validate(spec); err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v is of no class", err)
			}
			return
		}
		again, err := yaml.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("an accepted spec does not decode again: %v\n%s", err, again)
		}
		if err := Validate(back); err != nil {
			t.Fatalf("an accepted spec is refused after a round trip: %v\n%s", err, again)
		}
	})
}
