package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Every error says what to do, and stays what it was.
func TestAdvise(t *testing.T) {
	vms := schema.GroupResource{Group: v1alpha1.Group, Resource: "virtualmachines"}
	vmis := schema.GroupResource{Group: v1alpha1.Group, Resource: "virtualmachineinstances"}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"not installed":  {&meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: v1alpha1.Group, Kind: "VirtualMachine"}}, "not installed"},
		"login":          {apierrors.NewUnauthorized("no"), "log in again"},
		"hardware":       {apierrors.NewForbidden(schema.GroupResource{Group: v1alpha1.Group, Resource: "nodeinventories"}, "", errors.New("no")), "kubevfio-hardware-view"},
		"machines":       {apierrors.NewForbidden(vms, "a", errors.New("no")), "ClusterRole view"},
		"change machine": {apierrors.NewForbidden(vms, "a", errors.New(`User "x" cannot patch`)), "ClusterRole edit"},
		"console":        {apierrors.NewForbidden(schema.GroupResource{Group: "subresources.kubevfio.io", Resource: "virtualmachineinstances"}, "a", errors.New(`cannot get resource "virtualmachineinstances/console" in API group "subresources.kubevfio.io"`)), "kubevfio-console"},
		"exec":           {apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "a", errors.New(`cannot create resource "pods/exec"`)), "exec into pods"},
		"no machine":     {apierrors.NewNotFound(vms, "a"), "kubectl get kvm -A"},
		"no instance":    {apierrors.NewNotFound(vmis, "a"), "explain vm a"},
		"server down":    {fmt.Errorf("dial: %w", syscall.ECONNREFUSED), "does not answer"},
		"not ready":      {apierrors.NewServiceUnavailable("no"), "get apiservice"},
		"wrapped":        {fmt.Errorf("more: %w", apierrors.NewUnauthorized("no")), "log in again"},
	} {
		t.Run(name, func(t *testing.T) {
			got := advise(c.err)
			if !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) {
				t.Errorf("%v; want %q", got, c.want)
			}
		})
	}
	if got := advise(fmt.Errorf("x: %w", context.Canceled)); got.Error() != "stopped" {
		t.Errorf("interrupted: %v", got)
	}
	plain := errors.New("as it is")
	if got := advise(plain); got.Error() != plain.Error() || advise(nil) != nil {
		t.Errorf("%v", got)
	}
}

func TestArguments(t *testing.T) {
	for name, c := range map[string]struct{ argv, want []string }{
		"plugin":     {[]string{"/usr/bin/kubectl-vfio", "devices"}, []string{"devices"}},
		"completion": {[]string{"/usr/bin/kubectl_complete-vfio", "explain", ""}, []string{"__complete", "explain", ""}},
		"nothing":    {nil, nil},
	} {
		if d := cmp.Diff(c.want, Arguments(c.argv)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestBeginning(t *testing.T) {
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	launcher := metav1.ObjectMeta{Name: "b", Annotations: map[string]string{v1alpha1.VMAnnotation: ""}}
	for name, c := range map[string]struct {
		list  client.ObjectList
		typed string
		want  []string
	}{
		"machines": {&v1alpha1.VirtualMachineList{Items: []v1alpha1.VirtualMachine{
			{ObjectMeta: named("tb"), Status: v1alpha1.VirtualMachineStatus{PrintableStatus: "Running"}}, {ObjectMeta: named("ta")}, {ObjectMeta: named("x")},
		}}, "t", []string{"ta", "tb\tRunning"}},
		"launchers only": {&corev1.PodList{Items: []corev1.Pod{{ObjectMeta: named("a")}, {ObjectMeta: launcher, Spec: corev1.PodSpec{NodeName: "n"}}}}, "", []string{"b\tn"}},
		"nodes":          {&v1alpha1.NodeInventoryList{Items: []v1alpha1.NodeInventory{{ObjectMeta: named("n1")}}}, "", []string{"n1"}},
	} {
		if d := cmp.Diff(c.want, beginning(c.list, c.typed)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// run runs the plugin against an API server.
func run(t *testing.T, api http.Handler, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	server := httptest.NewServer(api)
	defer server.Close()
	config := filepath.Join(t.TempDir(), "config")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: \"" + server.URL +
		"\"}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: x}}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	root := New("v1", strings.NewReader(""), &out, &errOut)
	root.SetArgs(append([]string{"--kubeconfig", config, "--cache-dir", t.TempDir()}, args...))
	err = root.ExecuteContext(context.Background())
	return out.String(), errOut.String(), err
}

// A cluster without KubeVFIO is told as such, whatever is asked.
func TestNotInstalled(t *testing.T) {
	for _, args := range [][]string{{"devices"}, {"topology", "node", "n"}, {"explain", "vm", "x"}, {"start", "x"}} {
		_, _, err := run(t, http.NotFoundHandler(), args...)
		if err == nil || !strings.Contains(err.Error(), "not installed") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"devices", "-o", "yaml"}, {"topology", "rack", "x"}, {"explain", "disk", "x"}} {
		if _, _, err := run(t, http.NotFoundHandler(), args...); !errors.Is(err, ErrUsage) {
			t.Errorf("%v: %v, want %v", args, err, ErrUsage)
		}
	}
}

func TestVersion(t *testing.T) {
	out, _, err := run(t, http.NotFoundHandler(), "version", "--client", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("{\n  \"client\": \"v1\"\n}\n", out); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	out, note, err := run(t, http.NotFoundHandler(), "version")
	if err != nil || !strings.Contains(out, "v1") || !strings.Contains(note, "not known") {
		t.Errorf("without a cluster that answers: %q, %q, %v", out, note, err)
	}
	v := versions{Client: "v1", Agents: map[string]int{"v2": 3, "v1": 1}, Images: map[string]string{"kubevfio-controller": "image:v2"}}
	if d := cmp.Diff("kubectl-vfio  v1\nagents        v1 on 1 nodes\nagents        v2 on 3 nodes\nkubevfio-controller  image:v2\n", v.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Completion is made for every command that takes a name.
func TestEveryNameCompletes(t *testing.T) {
	root := New("v1", nil, &bytes.Buffer{}, &bytes.Buffer{})
	for _, c := range root.Commands() {
		if strings.Contains(c.Use, "NAME") && c.ValidArgsFunction == nil {
			t.Errorf("%s does not complete its NAME", c.Name())
		}
	}
	out, _, err := run(t, http.NotFoundHandler(), "__complete", "explain", "")
	if err != nil || !strings.HasPrefix(out, "vm\nvmi\npod\nnode\n") {
		t.Errorf("kinds: %q, %v", out, err)
	}
}

func TestProgress(t *testing.T) {
	now := time.Unix(0, 0)
	var out bytes.Buffer
	p := newProgress(&out, func() time.Time { return now })
	for _, text := range []string{"a", "a", "b", ""} {
		p.say(text)
	}
	p.clear()
	if d := cmp.Diff("a\nb\n", out.String()); d != "" {
		t.Errorf("without a terminal (-want +got):\n%s", d)
	}
	out.Reset()
	p.width = 20
	for _, text := range []string{"short", "something that is too long"} {
		p.say(text)
		now = now.Add(5 * time.Second)
	}
	p.clear()
	if d := cmp.Diff("\r\x1b[Kshort (0s)\r\x1b[Ksomething that is …\r\x1b[K", out.String()); d != "" {
		t.Errorf("on a terminal (-want +got):\n%s", d)
	}
}

func TestWaitingFor(t *testing.T) {
	vmi := &v1alpha1.VirtualMachineInstance{}
	got := []string{waitingFor("vm", nil), waitingFor("vm", vmi)}
	vmi.Status.Phase, vmi.Status.Reason, vmi.Status.Message, vmi.Status.NodeName = v1alpha1.VMIScheduling, "Unschedulable", "0/3 nodes\nfit", "n"
	got = append(got, waitingFor("vm", vmi))
	want := []string{"vm: no instance yet", "vm: instance pending", "vm: instance scheduling on node n: Unschedulable: 0/3 nodes fit"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
