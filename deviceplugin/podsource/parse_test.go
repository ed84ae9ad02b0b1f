package podsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

const podText = `{"metadata":{"uid":"u1","name":"vm","namespace":"ns","creationTimestamp":"2026-01-02T03:04:05Z","annotations":{"a":"}],\"{"}},
 "spec":{"nodeName":"n","containers":[{"name":"c","resources":{"limits":{"cpu":"2","example.com/vf":"2"}},"env":[{"name":"X","value":"[\\"}]}]},
 "status":{"phase":"Running","containerStatuses":[{"name":"c","containerID":"containerd://1","allocatedResourcesStatus":[
  {"name":"example.com/vf","resources":[{"resourceID":"0000:21:10.1"},{"resourceID":"0000:21:10.0"}]}]}]}}`

func TestParsePods(t *testing.T) {
	got, err := ParsePods([]byte(`{"kind":"PodList","metadata":{},"items": [ ` + podText + `,{"metadata":{"uid":"u2"},"status":{"phase":"Failed"}}] } `))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d pods, want 2", len(got))
	}
	p := got[0]
	want := []handoff.Container{{Name: "c", Limits: map[string]int{"example.com/vf": 2}, Started: true,
		Devices: map[string][]string{"example.com/vf": {"0000:21:10.1", "0000:21:10.0"}}}}
	if d := cmp.Diff(want, p.Containers); d != "" || p.UID != "u1" || p.Ref() != "ns/vm" || p.Node != "n" || p.Terminal || p.Created.Year() != 2026 {
		t.Errorf("pod %+v; containers (-want +got):\n%s", p, d)
	}
	if got[1].UID != "u2" || !got[1].Terminal {
		t.Errorf("second pod is %+v", got[1])
	}
	for _, text := range []string{"", "[]", "null", `{"items":[{"metadata":{"uid":1}}]}`, `{"items":[{]}`, `{"items":[{}`, `{"items":[{}]} x`, `{"items":[{},]}x`, `{"items":["a]}`} {
		if _, err := ParsePods([]byte(text)); !errors.Is(err, ErrKubelet) {
			t.Errorf("%q: %v, want %v", text, err, ErrKubelet)
		}
	}
}

// TestReaderRemembers: what has not changed is taken over, what has is read
// anew, and what is gone is forgotten.
func TestReaderRemembers(t *testing.T) {
	r := newPodReader()
	read := func(text string) []handoff.Pod {
		t.Helper()
		p, err := r.read([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b := `{"metadata":{"uid":"a"},"status":{"phase":"Pending"}}`, `{"metadata":{"uid":"b"}}`
	read(`{"items":[` + a + `,` + b + `]}`)
	for k, p := range r.known { // marks what the reader knows
		p.Name = "known " + p.UID
		r.known[k] = p
	}
	got := read(`{"items":[` + b + `,{"metadata":{"uid":"a"},"status":{"phase":"Failed"}}]}`)
	if got[0].Name != "known b" {
		t.Errorf("an unchanged pod was read again: %+v", got[0])
	}
	if got[1].Name != "" || !got[1].Terminal {
		t.Errorf("a changed pod was not read again: %+v", got[1])
	}
	if got := read(`{"items":[` + a + `]}`); got[0].Name != "" || len(r.known) != 1 {
		t.Errorf("a pod that was gone is remembered: %+v, %d known", got[0], len(r.known))
	}
}

// FuzzSplitItems compares with encoding/json on whatever that accepts.
func FuzzSplitItems(f *testing.F) {
	for _, s := range []string{`{"items":[1,"a",{"b":[2]}],"x":null}`, `{"items":null}`, `{"items":[]}`, `{"a":{"items":[1]},"items":[{"c":"\\\""}]}`, `{"items":{}}`, "{}", "[1]", `{"items"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := splitItems(b)
		if !json.Valid(b) {
			return // it must not panic; the values are decoded by encoding/json
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(b, &want) != nil || want == nil {
			if err == nil {
				t.Fatalf("%q is no object but was split into %q", b, got)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		var items []json.RawMessage
		if json.Unmarshal(want["items"], &items) != nil {
			return
		}
		// An escaped key means "items" to encoding/json only, and a second one
		// replaces the first; kubelet writes neither.
		if bytes.Contains(b, []byte(`\u`)) || bytes.Count(b, []byte(`"items"`)) > 1 {
			return
		}
		if len(got) != len(items) {
			t.Fatalf("%q: %d items, want %d", b, len(got), len(items))
		}
		for i := range got {
			if string(got[i]) != string(items[i]) {
				t.Fatalf("%q: item %d is %q, want %q", b, i, got[i], items[i])
			}
		}
	})
}

// FuzzParsePods: whatever kubelet says, no panic.
func FuzzParsePods(f *testing.F) {
	f.Add([]byte(`{"items":[` + podText + `]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		pods, err := ParsePods(b)
		if err != nil && (pods != nil || !errors.Is(err, ErrKubelet)) {
			t.Fatalf("%d pods with error %v", len(pods), err)
		}
	})
}
