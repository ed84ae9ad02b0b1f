package podsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

// ParsePods reads a PodList as kubelet's /pods gives it. Errors are of class
// [ErrKubelet].
func ParsePods(body []byte) ([]handoff.Pod, error) {
	return newPodReader().read(body)
}

// podReader reads kubelet's list again and again. The list has every pod of the
// node with all that kubelet knows of it, and between two calls hardly one has
// changed: a pod whose text is that of the last reading is not decoded again.
type podReader struct {
	seed maphash.Seed

	mu    sync.Mutex
	known map[textKey]handoff.Pod
}

// textKey stands for a pod's text: a keyed hash, so that nobody can make two
// that collide.
type textKey struct {
	sum  uint64
	size int
}

func newPodReader() *podReader {
	return &podReader{seed: maphash.MakeSeed(), known: map[textKey]handoff.Pod{}}
}

func (r *podReader) read(body []byte) ([]handoff.Pod, error) {
	items, err := splitItems(body)
	if err != nil {
		return nil, fmt.Errorf("%w: its list of pods: %w", ErrKubelet, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make(map[textKey]handoff.Pod, len(items))
	out := make([]handoff.Pod, 0, len(items))
	for _, text := range items {
		k := textKey{maphash.Bytes(r.seed, text), len(text)}
		p, ok := r.known[k]
		if !ok {
			if p, err = parsePod(text); err != nil {
				return nil, fmt.Errorf("%w: its list of pods: %w", ErrKubelet, err)
			}
		}
		now[k] = p
		out = append(out, p)
	}
	r.known = now
	return out, nil
}

// lightPod is the part of a pod that the ledger needs: the rest would be decoded
// for nothing.
type lightPod struct {
	Metadata struct {
		UID               string            `json:"uid"`
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		CreationTimestamp time.Time         `json:"creationTimestamp"`
		Annotations       map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		NodeName       string           `json:"nodeName"`
		InitContainers []lightContainer `json:"initContainers"`
		Containers     []lightContainer `json:"containers"`
	} `json:"spec"`
	Status struct {
		Phase                 corev1.PodPhase          `json:"phase"`
		InitContainerStatuses []corev1.ContainerStatus `json:"initContainerStatuses"`
		ContainerStatuses     []corev1.ContainerStatus `json:"containerStatuses"`
	} `json:"status"`
}

type lightContainer struct {
	Name          string                         `json:"name"`
	RestartPolicy *corev1.ContainerRestartPolicy `json:"restartPolicy"`
	Resources     struct {
		Limits corev1.ResourceList `json:"limits"`
	} `json:"resources"`
}

func parsePod(text []byte) (handoff.Pod, error) {
	var p lightPod
	if err := json.Unmarshal(text, &p); err != nil {
		return handoff.Pod{}, err
	}
	var full corev1.Pod
	full.UID = typesUID(p.Metadata.UID)
	full.Name, full.Namespace, full.Annotations = p.Metadata.Name, p.Metadata.Namespace, p.Metadata.Annotations
	full.CreationTimestamp.Time = p.Metadata.CreationTimestamp
	full.Spec.NodeName = p.Spec.NodeName
	full.Spec.InitContainers = containers(p.Spec.InitContainers)
	full.Spec.Containers = containers(p.Spec.Containers)
	full.Status.Phase = p.Status.Phase
	full.Status.InitContainerStatuses = p.Status.InitContainerStatuses
	full.Status.ContainerStatuses = p.Status.ContainerStatuses
	return handoff.FromPod(&full), nil
}

func containers(in []lightContainer) []corev1.Container {
	out := make([]corev1.Container, len(in))
	for i, c := range in {
		out[i].Name, out[i].RestartPolicy, out[i].Resources.Limits = c.Name, c.RestartPolicy, c.Resources.Limits
	}
	return out
}

var errJSON = errors.New("not a JSON list object")

// splitItems cuts the values of the member "items" out of a JSON object without
// decoding them. Text that it accepts may still be no JSON inside of a value;
// text that is JSON it always cuts as encoding/json does.
func splitItems(b []byte) ([][]byte, error) {
	c := cutter{b: b}
	var items [][]byte
	if !c.take('{') {
		return nil, fmt.Errorf("%w: it does not begin with an object", errJSON)
	}
	for first := true; !c.take('}'); first = false {
		if !first && !c.take(',') {
			return nil, fmt.Errorf("%w: no comma at byte %d", errJSON, c.at)
		}
		key, ok := c.value()
		if !ok || key[0] != '"' || !c.take(':') {
			return nil, fmt.Errorf("%w: no member at byte %d", errJSON, c.at)
		}
		if string(key) != `"items"` || !c.take('[') {
			if _, ok := c.value(); !ok {
				return nil, fmt.Errorf("%w: member %s ends too soon", errJSON, key)
			}
			continue
		}
		items = items[:0]
		for first := true; !c.take(']'); first = false {
			if !first && !c.take(',') {
				return nil, fmt.Errorf("%w: no comma at byte %d", errJSON, c.at)
			}
			v, ok := c.value()
			if !ok {
				return nil, fmt.Errorf("%w: item %d ends too soon", errJSON, len(items))
			}
			items = append(items, v)
		}
	}
	if c.space(); c.at != len(b) {
		return nil, fmt.Errorf("%w: more text after byte %d", errJSON, c.at)
	}
	return items, nil
}

// cutter walks over JSON text.
type cutter struct {
	b  []byte
	at int
}

func (c *cutter) space() {
	for c.at < len(c.b) && (c.b[c.at] == ' ' || c.b[c.at] == '\n' || c.b[c.at] == '\t' || c.b[c.at] == '\r') {
		c.at++
	}
}

// take goes over one character if it is the next.
func (c *cutter) take(ch byte) bool {
	c.space()
	if c.at < len(c.b) && c.b[c.at] == ch {
		c.at++
		return true
	}
	return false
}

// value goes over one value and gives its text, which is never empty.
func (c *cutter) value() ([]byte, bool) {
	c.space()
	from, depth := c.at, 0
	for c.at < len(c.b) {
		switch ch := c.b[c.at]; ch {
		case '"':
			if !c.text() {
				return nil, false
			}
			if depth == 0 {
				return c.b[from:c.at], true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return c.b[from:c.at], c.at > from
			}
			if depth--; depth == 0 {
				c.at++
				return c.b[from:c.at], true
			}
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return c.b[from:c.at], c.at > from
			}
		}
		c.at++
	}
	return c.b[from:c.at], depth == 0 && c.at > from
}

// text goes over a string, whose opening quote is the next character. Most of a
// list is strings: the next quote is looked for many bytes at a time, and closes
// the string unless an odd number of backslashes stands before it.
func (c *cutter) text() bool {
	from := c.at + 1
	for c.at = from; ; c.at++ {
		n := bytes.IndexByte(c.b[c.at:], '"')
		if n < 0 {
			c.at = len(c.b)
			return false
		}
		c.at += n
		slashes := 0
		for c.at-slashes > from && c.b[c.at-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			c.at++
			return true
		}
	}
}
