package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Names of the control plane's processes, for [Cluster.KillProcess] and its siblings.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kubevfio-scheduler"
)

// controlPlane lays out the files of the control plane under dir and knows the command lines.
type controlPlane struct {
	cfg Config
	dir string // state folder
	pki *pki
}

func (c *controlPlane) pkiFile(name string) string { return filepath.Join(c.dir, "pki", name) }
func (c *controlPlane) conf(name string) string    { return filepath.Join(c.dir, "conf", name) }

// write writes every file that the command lines name.
func (c *controlPlane) write(logs string) error {
	if err := c.pki.write(filepath.Join(c.dir, "pki")); err != nil {
		return err
	}
	files := map[string]any{
		"authentication.yaml": authenticationConfig(),
		"audit-policy.yaml":   auditPolicy(),
	}
	sched, err := c.schedulerConfig()
	if err != nil {
		return err
	}
	files["scheduler.yaml"] = sched
	if err := os.MkdirAll(c.conf(""), 0o700); err != nil {
		return err
	}
	for name, content := range files {
		b, err := yaml.Marshal(content)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(c.conf(name), b, 0o600); err != nil {
			return err
		}
	}
	for name, user := range map[string]string{"controller-manager.kubeconfig": userController, "scheduler.kubeconfig": userScheduler} {
		b, err := c.pki.kubeconfig(user, fmt.Sprintf("https://127.0.0.1:%d", apiPort))
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.conf(name), b, 0o600); err != nil {
			return err
		}
	}
	return os.MkdirAll(logs, 0o755)
}

// authenticationConfig lets nobody in without credentials, but to the health endpoints.
func authenticationConfig() map[string]any {
	return map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AuthenticationConfiguration",
		"anonymous": map[string]any{"enabled": true, "conditions": []any{
			map[string]any{"path": "/livez"}, map[string]any{"path": "/readyz"}, map[string]any{"path": "/healthz"},
		}},
	}
}

// auditPolicy records who wrote what in our groups, and bindings of pods, which carry our assignments.
func auditPolicy() map[string]any {
	verbs := []any{"create", "update", "patch", "delete", "deletecollection"}
	return map[string]any{
		"apiVersion": "audit.k8s.io/v1",
		"kind":       "Policy",
		"omitStages": []any{"RequestReceived"},
		"rules": []any{
			map[string]any{"level": "RequestResponse", "verbs": []any{"create"},
				"resources": []any{map[string]any{"group": "", "resources": []any{"pods/binding", "bindings"}}}},
			map[string]any{"level": "Request", "verbs": verbs, "resources": []any{
				map[string]any{"group": "kubevfio.io"}, map[string]any{"group": "subresources.kubevfio.io"}}},
			map[string]any{"level": "Metadata", "verbs": verbs,
				"resources": []any{map[string]any{"group": "", "resources": []any{"pods", "pods/eviction", "pods/exec"}}}},
			map[string]any{"level": "None"},
		},
	}
}

// schedulerConfig is the repository's own scheduler configuration with the lab's credentials, so that what is shipped is
// what is tested.
func (c *controlPlane) schedulerConfig() (map[string]any, error) {
	out := map[string]any{"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
	file := filepath.Join(c.cfg.Checkout, "manifests", "scheduler", "config.yaml")
	switch b, err := os.ReadFile(file); {
	case err == nil:
		if err := yaml.Unmarshal(b, &out); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	case !os.IsNotExist(err):
		return nil, err
	}
	out["clientConnection"] = map[string]any{"kubeconfig": c.conf("scheduler.kubeconfig")}
	out["leaderElection"] = map[string]any{"leaderElect": false}
	return out, nil
}

func (c *controlPlane) etcdArgs() []string {
	return []string{
		"--name=lab",
		"--data-dir=" + filepath.Join(c.dir, "etcd"),
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=lab=http://127.0.0.1:2380",
		"--unsafe-no-fsync", // the lab's data dies with the lab
		"--log-level=warn",
	}
}

func (c *controlPlane) apiServerArgs(logs string) []string {
	args := []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", // of the lab's own network namespace
		"--secure-port=" + strconv.Itoa(apiPort),
		"--advertise-address=" + gateway,
		"--client-ca-file=" + c.pkiFile("ca.crt"),
		"--tls-cert-file=" + c.pkiFile("apiserver.crt"),
		"--tls-private-key-file=" + c.pkiFile("apiserver.key"),
		"--kubelet-certificate-authority=" + c.pkiFile("ca.crt"),
		"--kubelet-client-certificate=" + c.pkiFile("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + c.pkiFile("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-key-file=" + c.pkiFile("sa.pub"),
		"--service-account-signing-key-file=" + c.pkiFile("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-cluster-ip-range=" + serviceNet,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--authentication-config=" + c.conf("authentication.yaml"),
		"--requestheader-client-ca-file=" + c.pkiFile("front-proxy-ca.crt"),
		"--requestheader-allowed-names=" + userFrontProxy,
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + c.pkiFile("front-proxy-client.crt"),
		"--proxy-client-key-file=" + c.pkiFile("front-proxy-client.key"),
		"--enable-aggregator-routing=true", // the API server is no node: it has routes to pods, but no service addresses
		"--allow-privileged=true",
		"--audit-policy-file=" + c.conf("audit-policy.yaml"),
		"--audit-log-path=" + filepath.Join(logs, "audit.log"),
		"--audit-log-maxsize=100",
		"--v=" + strconv.Itoa(c.cfg.Verbosity),
	}
	return append(args, c.featureGates()...)
}

func (c *controlPlane) controllerManagerArgs() []string {
	kc := c.conf("controller-manager.kubeconfig")
	args := []string{
		"--kubeconfig=" + kc,
		"--authentication-kubeconfig=" + kc,
		"--authorization-kubeconfig=" + kc,
		"--bind-address=127.0.0.1",
		"--client-ca-file=" + c.pkiFile("ca.crt"),
		"--requestheader-client-ca-file=" + c.pkiFile("front-proxy-ca.crt"),
		"--root-ca-file=" + c.pkiFile("ca.crt"),
		"--service-account-private-key-file=" + c.pkiFile("sa.key"),
		"--cluster-signing-cert-file=" + c.pkiFile("ca.crt"),
		"--cluster-signing-key-file=" + c.pkiFile("ca.key"),
		"--cluster-name=kubevfio-lab",
		"--use-service-account-credentials=true",
		"--leader-elect=false",
		"--controllers=*",
		// The nodes' pod networks are fixed by their numbers (see nodeAt): routes and CNI need them before a node registers.
		"--allocate-node-cidrs=false",
		"--service-cluster-ip-range=" + serviceNet,
		"--v=" + strconv.Itoa(c.cfg.Verbosity),
	}
	return append(args, c.featureGates()...)
}

func (c *controlPlane) schedulerArgs() []string {
	kc := c.conf("scheduler.kubeconfig")
	args := []string{
		"--config=" + c.conf("scheduler.yaml"),
		"--authentication-kubeconfig=" + kc,
		"--authorization-kubeconfig=" + kc,
		"--bind-address=127.0.0.1",
		"--v=" + strconv.Itoa(c.cfg.Verbosity),
	}
	return append(args, c.featureGates()...)
}

func (c *controlPlane) featureGates() []string {
	if len(c.cfg.FeatureGates) == 0 {
		return nil
	}
	var gates []string
	for name, on := range c.cfg.FeatureGates {
		gates = append(gates, fmt.Sprintf("%s=%t", name, on))
	}
	sort.Strings(gates)
	return []string{"--feature-gates=" + strings.Join(gates, ",")}
}
