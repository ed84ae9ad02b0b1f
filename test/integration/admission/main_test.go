package admission

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/integration/apiserver"
)

// namespace enforces the restricted Pod Security Standard.
const namespace = "vms"

// server is shared by all tests of the package: it takes seconds to start.
var server *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if server, err = apiserver.Start(os.Stderr, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// prepare installs what an admin installs and waits until the policies work.
func prepare(ctx context.Context) error {
	for _, path := range []string{"manifests/overlays/lab", "manifests/examples/namespace"} {
		if err := server.Apply(ctx, path, nil); err != nil {
			return fmt.Errorf("apply %s: %w", path, err)
		}
	}
	admin, err := as("", nil)
	if err != nil {
		return err
	}
	// Resizing a bound pod asks for its node.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
	if err := server.Admin.Create(ctx, node); err != nil {
		return err
	}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64")}
	node.Status.Capacity = node.Status.Allocatable
	if err := server.Admin.Status().Update(ctx, node); err != nil {
		return err
	}
	// Every policy is probed: they become active one by one. A binding of a pod
	// that does not exist is admitted or refused before that is noticed.
	probes := map[string]func() error{
		"pods": func() error {
			p := newPod("probe")
			p.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: "{}"}
			_, err := admin.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		},
		"bindings": func() error {
			b := newBinding("absent", "node-a", "{}")
			return admin.CoreV1().Pods(namespace).Bind(ctx, b, metav1.CreateOptions{})
		},
		"node objects": func() error {
			c, err := server.As(rest.ImpersonationConfig{UserName: agentUser, Groups: []string{"system:masters"}})
			if err != nil {
				return err
			}
			inv := &v1alpha1.NodeInventory{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}
			err = c.Create(ctx, inv, client.DryRunAll)
			if err != nil && strings.Contains(err.Error(), "does not say on which node") {
				return fmt.Errorf("%w (%s)", err, v1alpha1.AssignmentAnnotation)
			}
			return err
		},
	}
	for name, probe := range probes {
		for {
			err := probe()
			if err != nil && strings.Contains(err.Error(), v1alpha1.AssignmentAnnotation) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the policy about %s does not work; last answer: %w", name, err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// as is a clientset for a user; the empty name is the admin.
func as(user string, groups []string) (*kubernetes.Clientset, error) {
	config := rest.CopyConfig(server.Config)
	if user != "" {
		// RBAC is not what these tests are about: every user may do everything.
		config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append([]string{"system:masters"}, groups...)}
	}
	return kubernetes.NewForConfig(config)
}

func newPod(name string) *corev1.Pod {
	yes, no, id := true, false, int64(107)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PodSpec{
			// Without a service account controller nothing makes tokens.
			AutomountServiceAccountToken: &no,
			SchedulerName:                v1alpha1.SchedulerName,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   &yes,
				RunAsUser:      &id,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:  "compute",
				Image: "localhost/kubevfio/launcher:dev",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no,
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

func newBinding(pod, node, assignment string) *corev1.Binding {
	b := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: namespace},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	if assignment != "" {
		b.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: assignment}
	}
	return b
}
