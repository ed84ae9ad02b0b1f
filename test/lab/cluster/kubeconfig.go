package cluster

import (
	"encoding/base64"
	"fmt"

	"sigs.k8s.io/yaml"
)

// kubeconfig returns a self-contained kubeconfig for a user at a server's URL.
func (p *pki) kubeconfig(user, server string) ([]byte, error) {
	id, ok := p.clients[user]
	if !ok {
		return nil, fmt.Errorf("no client certificate for %q", user)
	}
	b64 := base64.StdEncoding.EncodeToString
	return yaml.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []any{map[string]any{"name": "kubevfio-lab", "cluster": map[string]any{
			"server": server, "certificate-authority-data": b64(p.ca.certPEM()),
		}}},
		"users": []any{map[string]any{"name": user, "user": map[string]any{
			"client-certificate-data": b64(id.cert), "client-key-data": b64(id.key),
		}}},
		"contexts": []any{map[string]any{"name": "kubevfio-lab", "context": map[string]any{
			"cluster": "kubevfio-lab", "user": user,
		}}},
		"current-context": "kubevfio-lab",
	})
}
