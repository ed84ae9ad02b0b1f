package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launchercall"
)

// Start, stop and restart by the API, with the words of the field.
func TestAPIPower(t *testing.T) {
	waitAPI(t)
	ns := newNamespace(t)
	user := caller(t, ns, "editor-"+ns, edit...)
	do := func(name, sub, body string, want int, says ...string) {
		t.Helper()
		put(t, user, ns, subresourcesv1alpha1.Machines, name, sub, body, want, says...)
	}
	newMachine(t, ns, "vm", v1alpha1.RunHalted)
	do("vm", "stop", "", http.StatusConflict, "stopped already")
	do("vm", "restart", "", http.StatusConflict, "switched off")
	do("vm", "start?dryRun=All", "", http.StatusOK, "starting")
	do("vm", "start?dryRun=Some", "", http.StatusBadRequest, "dryRun")
	do("absent", "start", "", http.StatusNotFound, "absent")
	if vm := waitMachine(t, ns, "vm", "is there", func(*v1alpha1.VirtualMachine) bool { return true }); vm.Spec.RunStrategy != v1alpha1.RunHalted {
		t.Fatalf("a dry run wrote runStrategy %s", vm.Spec.RunStrategy)
	}
	do("vm", "start", `{"kind":"StartOptions","apiVersion":"subresources.kubevfio.io/v1alpha1"}`, http.StatusOK, "Always")
	vmi, pod := start(t, ns, "vm")
	do("vm", "start", "", http.StatusConflict, "already")

	for body, says := range map[string]string{
		`{"gracePeriod":5}`:            "gracePeriod",
		`{"gracePeriodSeconds":-1}`:    "gracePeriodSeconds",
		`{"kind":"StartOptions"}`:      "StopOptions",
		`[]`:                           "StopOptions",
		`{} {}`:                        "more than one",
		`{"gracePeriodSeconds":"now"}`: "gracePeriodSeconds",
	} {
		do("vm", "stop", body, http.StatusBadRequest, says)
	}

	do("vm", "restart", `{"gracePeriodSeconds":7}`, http.StatusOK, "restarting")
	eventually(t, "the pod is being deleted", func(ctx context.Context) error {
		p, err := get(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: pod.Name}})
		if err == nil && (p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != 22) {
			err = fmt.Errorf("grace period %v, want 7 s and 15 s for the launcher", p.DeletionGracePeriodSeconds)
		}
		return err
	})
	kubeletDeletes(t, pod)
	waitInstance(t, ns, "vm", "is a new one", func(v *v1alpha1.VirtualMachineInstance) bool { return v.UID != vmi.UID })
	vmi, pod = start(t, ns, "vm")

	// A slow stop, and then somebody loses patience.
	do("vm", "stop", "", http.StatusOK, "Halted")
	grace := func(want int64) {
		t.Helper()
		eventually(t, "the pod has its grace period", func(ctx context.Context) error {
			p, err := get(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: pod.Name}})
			if err == nil && (p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != want) {
				err = fmt.Errorf("grace period %s, want %d", text(p.DeletionGracePeriodSeconds), want)
			}
			return err
		})
	}
	grace(35)
	do("vm", "stop", "", http.StatusConflict, "shutting down already")
	do("vm", "stop", `{"gracePeriodSeconds":0}`, http.StatusOK, "switching off")
	grace(1)
	kubeletDeletes(t, pod)
	waitGone(t, vmi)
	waitMachine(t, ns, "vm", "is stopped, with nothing left to do", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMStopped && len(vm.Status.StateChangeRequests) == 0
	})
}

// Pause is seen at once, and unpause too; one by somebody in the pod is found out.
func TestAPIPause(t *testing.T) {
	waitAPI(t)
	ns := newNamespace(t)
	user := caller(t, ns, "editor-"+ns, edit...)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	code, text, err := call(t.Context(), user, http.MethodPut, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "pause"), "")
	if err != nil || code != http.StatusConflict && code != http.StatusNotFound {
		t.Errorf("pause before it runs: %d, %v: %s", code, err, text)
	}
	_, pod := start(t, ns, "vm")
	paused := func(v *v1alpha1.VirtualMachineInstance) bool {
		return conditionIs(v.Status.Conditions, v1alpha1.ConditionPaused, metav1.ConditionTrue) &&
			conditionIs(v.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse)
	}
	goes := func(v *v1alpha1.VirtualMachineInstance) bool {
		return meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionPaused) == nil &&
			conditionIs(v.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue)
	}
	put(t, user, ns, subresourcesv1alpha1.Instances, "vm", "pause", "", http.StatusOK, "paused")
	waitInstance(t, ns, "vm", "is paused", paused)
	waitMachine(t, ns, "vm", "is paused", func(vm *v1alpha1.VirtualMachine) bool { return vm.Status.PrintableStatus == v1alpha1.VMPaused })
	report(t, pod, running(false, assigned))
	waitInstance(t, ns, "vm", "stays paused", paused)
	put(t, user, ns, subresourcesv1alpha1.Instances, "vm", "unpause", "{}", http.StatusOK, "running")
	waitInstance(t, ns, "vm", "is not paused", func(v *v1alpha1.VirtualMachineInstance) bool {
		return meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionPaused) == nil
	})
	report(t, pod, running(true, assigned))
	waitInstance(t, ns, "vm", "goes on", goes)

	launchers.set(pod.Name, "Paused")
	report(t, pod, running(false, assigned))
	waitInstance(t, ns, "vm", "was paused by somebody else", paused)
	launchers.set(pod.Name, "Running")
	report(t, pod, running(true, assigned))
	waitInstance(t, ns, "vm", "goes on again", goes)

	guests.failing(t, fmt.Errorf("%w: %w: the guest is off", launchercall.ErrCall, launchercall.ErrConflict))
	put(t, user, ns, subresourcesv1alpha1.Instances, "vm", "softreboot", "", http.StatusConflict, "the guest is off")
	guests.failing(t, fmt.Errorf("%w: %w: no agent", launchercall.ErrCall, launchercall.ErrNotSupported))
	code, text, err = call(t.Context(), user, http.MethodGet, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "guestinfo"), "")
	if err != nil || code != http.StatusNotImplemented || !contains(text, "no agent") {
		t.Errorf("guestinfo without an agent: %d, %v: %s", code, err, text)
	}
	guests.failing(t, fmt.Errorf("%w: %w: no socket", launchercall.ErrCall, launchercall.ErrUnavailable))
	code, text, err = call(t.Context(), user, http.MethodGet, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "state"), "")
	if err != nil || code != http.StatusServiceUnavailable || !contains(text, "no socket") {
		t.Errorf("state of a launcher that is starting: %d, %v: %s", code, err, text)
	}
}

// Who has which role may do what; nobody else, and anonymous callers nothing.
func TestAPIRoles(t *testing.T) {
	waitAPI(t)
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	start(t, ns, "vm")
	users := map[string]*rest.Config{
		"stranger": caller(t, ns, "stranger-"+ns), "view": caller(t, ns, "viewer-"+ns, edit[:1]...), "edit": caller(t, ns, "editor-"+ns, edit...),
		"admin": caller(t, ns, "admin-"+ns, append(edit, "kubevfio-admin")...), "console": caller(t, ns, "console-"+ns, "kubevfio-console"),
	}
	type right struct{ method, resource, sub string }
	allowed := map[right]string{
		{http.MethodGet, subresourcesv1alpha1.Instances, "state"}:      "view edit admin",
		{http.MethodGet, subresourcesv1alpha1.Instances, "guestinfo"}:  "view edit admin",
		{http.MethodGet, subresourcesv1alpha1.Instances, "screenshot"}: "console",
		{http.MethodPut, subresourcesv1alpha1.Instances, "softreboot"}: "edit admin",
		{http.MethodPut, subresourcesv1alpha1.Machines, "start"}:       "edit admin", // it runs: 409
	}
	for r, who := range allowed {
		for name, cfg := range users {
			code, text, err := call(t.Context(), cfg, r.method, pathOf(ns, r.resource, "vm", r.sub), "")
			may := strings.Contains(" "+who+" ", " "+name+" ")
			if err != nil || may != (code == http.StatusOK || code == http.StatusConflict) || !may && code != http.StatusForbidden {
				t.Errorf("%s: %s %s: %d, %v: %s", name, r.method, r.sub, code, err, text)
			}
		}
	}
	for name, cfg := range users {
		for _, sub := range []string{"console", "vnc"} {
			conn, err := dial(t.Context(), cfg, pathOf(ns, subresourcesv1alpha1.Instances, "vm", sub))
			if (err == nil) != (name == "console") {
				t.Errorf("%s opens a %s: %v", name, sub, err)
			}
			if err == nil {
				if err := errors.Join(echo(conn, "hello"), conn.Close()); err != nil {
					t.Errorf("%s of %s: %v", sub, name, err)
				}
			}
		}
	}
	// A wrong method, an unknown thing, an upgrade that is none.
	for path, want := range map[string]int{
		pathOf(ns, subresourcesv1alpha1.Instances, "vm", "pause"):    http.StatusMethodNotAllowed,
		pathOf(ns, subresourcesv1alpha1.Instances, "vm", "reboot"):   http.StatusNotFound,
		pathOf(ns, subresourcesv1alpha1.Machines, "vm", "console"):   http.StatusNotFound,
		pathOf(ns, "pods", "vm", "start"):                            http.StatusNotFound,
		pathOf(ns, subresourcesv1alpha1.Instances, "vm", "console"):  http.StatusBadRequest,
		pathOf(ns, subresourcesv1alpha1.Instances, "vm", "log?a=b"):  http.StatusBadRequest,
		pathOf(ns, subresourcesv1alpha1.Instances, "vm", "state/x"):  http.StatusNotFound,
		pathOf(ns, subresourcesv1alpha1.Instances, "nope", "state"):  http.StatusNotFound,
		"/apis/" + subresourcesv1alpha1.GroupVersion + "/namespaces": http.StatusNotFound,
	} {
		if code, text, err := call(t.Context(), server.Config, http.MethodGet, path, ""); err != nil || code != want || !contains(text, `"kind":"Status"`) {
			t.Errorf("GET %s: %d, %v, want %d: %s", path, code, err, want, text)
		}
	}
	// Past the API server: no certificate, a certificate that is no front proxy's, and
	// headers that claim what they like.
	direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, headers := range []map[string]string{
		{}, {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}, {"Authorization": "Bearer nonsense"},
	} {
		for _, path := range []string{pathOf(ns, subresourcesv1alpha1.Instances, "vm", "state"), "/apis", "/healthz", "/"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+apiAddress+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range headers {
				r.Header.Set(k, v)
			}
			resp, err := direct.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%v at %s: %d, want 401", headers, path, resp.StatusCode)
			}
			resp.Body.Close()
		}
	}
	// An administrator who lets anonymous callers in by mistake lets nobody in.
	b := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "mistake"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "kubevfio-console"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "system:anonymous"}},
	}
	if err := server.Admin.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	nobody := rest.CopyConfig(server.Config)
	nobody.Impersonate = rest.ImpersonationConfig{UserName: "system:anonymous", Groups: []string{"system:unauthenticated"}}
	eventually(t, "anonymous callers are refused by the API itself", func(ctx context.Context) error {
		code, text, err := call(ctx, nobody, http.MethodGet, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "screenshot"), "")
		if err == nil && (code != http.StatusUnauthorized || !contains(text, "anonymous")) {
			err = fmt.Errorf("%d: %s", code, text)
		}
		return err
	})
}

// kubectl sees the subresources, and takes the machines of kubevfio.io for machines.
func TestAPIDiscovery(t *testing.T) {
	waitAPI(t)
	d, err := discovery.NewDiscoveryClientForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "discovery has the group", func(context.Context) error {
		list, err := d.ServerResourcesForGroupVersion(subresourcesv1alpha1.GroupVersion)
		if err != nil {
			return err
		}
		var names []string
		for _, r := range list.APIResources {
			names = append(names, r.Name)
		}
		want := []string{
			"virtualmachineinstances/console", "virtualmachineinstances/guestinfo", "virtualmachineinstances/log", "virtualmachineinstances/pause",
			"virtualmachineinstances/screenshot", "virtualmachineinstances/softreboot", "virtualmachineinstances/state",
			"virtualmachineinstances/unpause", "virtualmachineinstances/vnc",
			"virtualmachines/restart", "virtualmachines/start", "virtualmachines/stop",
		}
		if diff := cmp.Diff(want, names); diff != "" {
			return fmt.Errorf("resources (-want +got):\n%s", diff)
		}
		return nil
	})
	groups, _, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	if text := text(groups); !strings.Contains(text, subresourcesv1alpha1.Group) || strings.Index(text, `"kubevfio.io"`) > strings.Index(text, subresourcesv1alpha1.Group) {
		t.Errorf("groups: %s", text)
	}
}

// Certificates change under calls and open streams, and nobody notices.
func TestAPIRotation(t *testing.T) {
	waitAPI(t)
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	start(t, ns, "vm")
	served := func() string {
		conn, err := tls.Dial("tcp", apiAddress, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	conn, err := dial(t.Context(), server.Config, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	seen := map[string]bool{}
	calls := 0
	for end := time.Now().Add(3 * certificateLife); len(seen) < 2 && time.Now().Before(end); calls++ {
		seen[served()] = true
		// Each call makes a connection of its own, whose certificate is verified.
		if code, text, err := call(t.Context(), server.Config, http.MethodGet, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "state"), ""); err != nil || code != http.StatusOK {
			t.Fatalf("call %d with certificates %v: %d, %v: %s", calls, seen, code, err, text)
		}
		if err := echo(conn, fmt.Sprint("still ", calls)); err != nil {
			t.Fatalf("stream at call %d: %v", calls, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if len(seen) < 2 {
		t.Errorf("one certificate in %d calls over %v", calls, 3*certificateLife)
	}
	t.Logf("%d calls, %d certificates", calls, len(seen))
}

// The reason of a stream's end reaches the client.
func TestAPIStreamEnds(t *testing.T) {
	waitAPI(t)
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	start(t, ns, "vm")
	guests.failing(t, fmt.Errorf("%w: pod x/y: console: %w: the guest is shutting down", launchercall.ErrCall, launchercall.ErrConflict))
	conn, err := dial(t.Context(), server.Config, pathOf(ns, subresourcesv1alpha1.Instances, "vm", "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _, err = conn.ReadMessage()
	var ended *websocket.CloseError
	if !errors.As(err, &ended) || ended.Code != websocket.ClosePolicyViolation || !contains(ended.Text, "the guest is shutting down") {
		t.Errorf("the stream ended with %v", err)
	}
}

// The controller can exec nothing but the launcher's proxy, even in its own pods.
func TestControllerExecsOnlyTheProxy(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	_, pod := start(t, ns, "vm")
	cfg := rest.CopyConfig(server.Config)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:kubevfio-system:kubevfio-controller",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kubevfio-system", "system:authenticated"},
	}
	base := "/api/v1/namespaces/" + ns + "/pods/" + pod.Name
	for query, refused := range map[string]bool{
		"/exec?container=compute&command=/bin/sh&stdout=true":                                            true,
		"/exec?container=other&command=/usr/bin/kubevfio-launcher&command=proxy&stdout=true":             true,
		"/exec?container=compute&command=/usr/bin/kubevfio-launcher&stdout=true":                         true,
		"/exec?container=compute&command=/usr/bin/kubevfio-launcher&command=run&stdout=true":             true,
		"/exec?container=compute&command=/usr/bin/kubevfio-launcher&command=proxy&command=x&stdout=true": false,
	} {
		eventually(t, query, func(ctx context.Context) error {
			code, text, err := call(ctx, cfg, http.MethodPost, base+query, "")
			// There is no kubelet: what is let through fails later, and otherwise.
			if err == nil && refused != (code == http.StatusForbidden && contains(text, "kubevfio-exec")) {
				err = fmt.Errorf("%d: %s", code, text)
			}
			return err
		})
	}
}
