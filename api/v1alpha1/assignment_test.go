package v1alpha1

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/topology"
)

func TestDecodeAssignment(t *testing.T) {
	const good = `{"version":"v1","podUID":"u","node":"n","containers":{"compute":{"example.com/gpu":["0000:41:00.0","10000:02:00.1"]}},"alignment":"root","numaNodes":[0]}`
	a, err := DecodeAssignment(good)
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := DecodeAssignment(again)
	if diff := cmp.Diff(a, b); err != nil || diff != "" {
		t.Errorf("%v, there and back:\n%s", err, diff)
	}
	for name, c := range map[string]struct{ change, to, says string }{
		"no JSON":       {good, "0000:41:00.0", ErrAssignment.Error()},
		"unknown field": {`"node":"n"`, `"node":"n","force":true`, "force"},
		"other version": {`"v1"`, `"v2"`, `version "v2"`},
		"no pod":        {`"podUID":"u"`, `"podUID":""`, "podUID"},
		"no node":       {`"node":"n"`, `"node":""`, "node"},
		"text behind":   {`[0]}`, `[0]} x`, "after"},
		"named twice":   {"10000:02:00.1", "0000:41:00.0", "0000:41:00.0 named twice"},
		"no address":    {"10000:02:00.1", "GPU-1", "GPU-1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeAssignment(strings.Replace(good, c.change, c.to, 1))
			if !errors.Is(err, ErrAssignment) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error = %v; want %q in it", err, c.says)
			}
		})
	}
}

// Whatever is read is written so that it is read as the same.
func FuzzDecodeAssignment(f *testing.F) {
	f.Add(`{"version":"v1","podUID":"u","node":"n","containers":{"c":{"r":["0000:41:00.0"]}}}`)
	f.Add(`{"version":"v1","podUID":"u","node":"n","containers":null,"numaNodes":[1,0]}`)
	f.Add(`{"version":"v1","podUID":"u","node":"n"}{}`)
	f.Fuzz(func(t *testing.T, text string) {
		a, err := DecodeAssignment(text)
		if err != nil {
			if !errors.Is(err, ErrAssignment) {
				t.Errorf("class of %v", err)
			}
			return
		}
		seen := map[topology.Address]bool{}
		for _, resources := range a.Containers {
			for _, units := range resources {
				for _, u := range units {
					if seen[u] {
						t.Errorf("%s is there twice", u)
					}
					seen[u] = true
				}
			}
		}
		again, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := DecodeAssignment(again)
		if err != nil {
			t.Fatalf("%v: %s", err, again)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("there and back:\n%s", diff)
		}
	})
}

func FuzzParseAlignment(f *testing.F) {
	f.Add("required:root")
	f.Add("preferred:numa")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAlignment(s)
		switch {
		case err != nil && !errors.Is(err, ErrAlignment):
			t.Errorf("class of %v", err)
		case err == nil && !strings.HasSuffix(s, ":"+a.Level.String()):
			t.Errorf("%q became %v", s, a)
		}
	})
}
