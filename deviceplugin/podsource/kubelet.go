// Package podsource lists this node's pods for the allocation ledger: from
// kubelet's own list, which is never late, from the API server, and from
// kubelet's pod-resources API.
//
// It is for package agent. Trap: kubelet's list is read while kubelet waits for
// us; its time counts.
package podsource

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

// ErrKubelet is the class of errors about kubelet's own API.
var ErrKubelet = errors.New("kubelet's API")

// Limit bounds one reading of kubelet's list.
const Limit = 500 * time.Millisecond

// Kubelet reads kubelet's authenticated API on its node.
type Kubelet struct {
	base   string
	token  func() (string, error)
	client *http.Client
}

// NewKubelet makes a client of https://address (host:port) with the token that a
// file holds; the file is read for each call, for kubelet renews it. caFile is
// the authority of kubelet's serving certificate; empty accepts any, for kubelet
// signs its own unless told otherwise (the token is bound to this node's pod, and
// the address is this node's own).
func NewKubelet(address, tokenFile, caFile string) (*Kubelet, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		conf.InsecureSkipVerify = true
	} else {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("%w: authority of its certificate: %w", ErrKubelet, err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no certificate", ErrKubelet, caFile)
		}
	}
	return &Kubelet{
		base: "https://" + address,
		token: func() (string, error) {
			b, err := os.ReadFile(tokenFile)
			return strings.TrimSpace(string(b)), err
		},
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: conf, MaxIdleConns: 2, IdleConnTimeout: 5 * time.Minute}},
	}, nil
}

// Get reads a path of kubelet's API; what names it in errors.
func (k *Kubelet) Get(ctx context.Context, path string) ([]byte, error) {
	token, err := k.token()
	if err != nil {
		return nil, fmt.Errorf("%w: read token: %w", ErrKubelet, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKubelet, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKubelet, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKubelet, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s: %s: %.200s", ErrKubelet, path, resp.Status, body)
	}
	return body, nil
}

// Pods implements handoff.Source within [Limit].
func (k *Kubelet) Pods(ctx context.Context) ([]handoff.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	body, err := k.Get(ctx, "/pods")
	if err != nil {
		return nil, err
	}
	return ParsePods(body)
}

// lightPod is the part of a pod that the ledger needs: /pods is megabytes on a
// full node, and the rest would be decoded for nothing.
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

// ParsePods reads a PodList as kubelet's /pods gives it.
func ParsePods(body []byte) ([]handoff.Pod, error) {
	var l struct {
		Items []lightPod `json:"items"`
	}
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, fmt.Errorf("%w: its list of pods: %w", ErrKubelet, err)
	}
	out := make([]handoff.Pod, 0, len(l.Items))
	for i := range l.Items {
		p := &l.Items[i]
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
		out = append(out, handoff.FromPod(&full))
	}
	return out, nil
}

func containers(in []lightContainer) []corev1.Container {
	out := make([]corev1.Container, len(in))
	for i, c := range in {
		out[i].Name, out[i].RestartPolicy, out[i].Resources.Limits = c.Name, c.RestartPolicy, c.Resources.Limits
	}
	return out
}
