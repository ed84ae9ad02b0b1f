package admission

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

const (
	agentUser     = "system:serviceaccount:kubevfio-system:kubevfio-agent"
	schedulerUser = "system:serviceaccount:kubevfio-system:kubevfio-scheduler"
	controlPlane  = "system:kube-scheduler"
	kubeletUser   = "system:node:node-a"
	// forged is what an attacker would like; real is the scheduler's.
	forged = `{"version":"v1","podUID":"forged"}`
	real   = `{"version":"v1","podUID":"real"}`
)

// users are everybody who may try; none of them may write the annotation into a pod.
var users = map[string][]string{
	"":                               nil,
	"alice":                          nil,
	kubeletUser:                      {"system:nodes"},
	agentUser:                        {"system:serviceaccounts"},
	schedulerUser:                    {"system:serviceaccounts"},
	controlPlane:                     nil,
	"system:kube-controller-manager": nil,
	"system:serviceaccount:kubevfio-system:kubevfio-fake": {"system:serviceaccounts"},
}

func clientFor(t *testing.T, user string) *kubernetes.Clientset {
	t.Helper()
	c, err := as(user, users[user])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantRefused checks that the policy refused, in words that name the annotation.
func wantRefused(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Error("accepted; want a refusal that names the annotation")
	case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "annotation "+v1alpha1.AssignmentAnnotation):
		t.Errorf("error = %v; want Forbidden by the policy, naming the annotation", err)
	}
}

func TestAssignmentRefusedOnCreate(t *testing.T) {
	forge := func(name string) *corev1.Pod {
		p := newPod(name)
		p.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: forged}
		return p
	}
	ways := map[string]func(context.Context, *kubernetes.Clientset) error{
		"create": func(ctx context.Context, c *kubernetes.Clientset) error {
			_, err := c.CoreV1().Pods(namespace).Create(ctx, forge("forged"), metav1.CreateOptions{})
			return err
		},
		"empty value": func(ctx context.Context, c *kubernetes.Clientset) error {
			p := forge("forged")
			p.Annotations[v1alpha1.AssignmentAnnotation] = ""
			_, err := c.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
			return err
		},
		"generateName": func(ctx context.Context, c *kubernetes.Clientset) error {
			p := forge("")
			p.GenerateName = "forged-"
			_, err := c.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
			return err
		},
		"with nodeName, past the scheduler": func(ctx context.Context, c *kubernetes.Clientset) error {
			p := forge("forged")
			p.Spec.NodeName = "node-a"
			_, err := c.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
			return err
		},
		"mirror pod": func(ctx context.Context, c *kubernetes.Clientset) error {
			p := forge("forged-node-a")
			p.Spec.NodeName = "node-a"
			p.Annotations[corev1.MirrorPodAnnotationKey] = "hash"
			_, err := c.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
			return err
		},
		"server-side apply": func(ctx context.Context, c *kubernetes.Clientset) error {
			patch := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"forged","annotations":{%q:%q}},
				"spec":{"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},
				"containers":[{"name":"compute","image":"x","securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}`,
				v1alpha1.AssignmentAnnotation, forged)
			_, err := c.CoreV1().Pods(namespace).Patch(ctx, "forged", types.ApplyPatchType, []byte(patch),
				metav1.PatchOptions{FieldManager: "forger"})
			return err
		},
		"dry run": func(ctx context.Context, c *kubernetes.Clientset) error {
			_, err := c.CoreV1().Pods(namespace).Create(ctx, forge("forged"), metav1.CreateOptions{DryRun: []string{"All"}})
			return err
		},
	}
	for way, try := range ways {
		for user := range users {
			t.Run(way+"/"+user, func(t *testing.T) {
				wantRefused(t, try(t.Context(), clientFor(t, user)))
			})
		}
	}
}

// boundPod creates a pod and, with an assignment, lets the scheduler bind it.
func boundPod(t *testing.T, name, assignment string) *corev1.Pod {
	t.Helper()
	c := clientFor(t, schedulerUser)
	p, err := c.CoreV1().Pods(namespace).Create(t.Context(), newPod(name), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		zero := int64(0)
		if err := c.CoreV1().Pods(namespace).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Error(err)
		}
	})
	if err := c.CoreV1().Pods(namespace).Bind(t.Context(), newBinding(name, "node-a", assignment), metav1.CreateOptions{}); err != nil {
		t.Fatalf("the scheduler's own binding: %v", err)
	}
	p, err = c.CoreV1().Pods(namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Annotations[v1alpha1.AssignmentAnnotation]; got != assignment || p.Spec.NodeName != "node-a" {
		t.Fatalf("after binding: assignment %q, node %q", got, p.Spec.NodeName)
	}
	return p
}

func TestAssignmentRefusedOnUpdate(t *testing.T) {
	with, without := boundPod(t, "with", real), boundPod(t, "without", "")
	key := strings.ReplaceAll(v1alpha1.AssignmentAnnotation, "/", "~1")
	changes := map[string]struct {
		pod   *corev1.Pod
		value *string
	}{
		"add":    {without, new(forged)},
		"change": {with, new(forged)},
		"empty":  {with, new("")},
		"remove": {with, nil},
	}
	type attempt func(context.Context, *kubernetes.Clientset, *corev1.Pod, *string, string) error
	put := func(ctx context.Context, c *kubernetes.Clientset, p *corev1.Pod, value *string, sub string) error {
		p = p.DeepCopy()
		p.ResourceVersion = ""
		delete(p.Annotations, v1alpha1.AssignmentAnnotation)
		if value != nil {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, v1alpha1.AssignmentAnnotation, *value)
		}
		return c.CoreV1().RESTClient().Put().Namespace(namespace).Resource("pods").Name(p.Name).SubResource(subs(sub)...).Body(p).Do(ctx).Error()
	}
	patch := func(kind types.PatchType) attempt {
		return func(ctx context.Context, c *kubernetes.Clientset, p *corev1.Pod, value *string, sub string) error {
			var text string
			options := metav1.PatchOptions{}
			switch {
			case kind == types.JSONPatchType && value == nil:
				text = fmt.Sprintf(`[{"op":"remove","path":"/metadata/annotations/%s"}]`, key)
			case kind == types.JSONPatchType && len(p.Annotations) == 0:
				text = fmt.Sprintf(`[{"op":"add","path":"/metadata/annotations","value":{%q:%q}}]`, v1alpha1.AssignmentAnnotation, *value)
			case kind == types.JSONPatchType:
				text = fmt.Sprintf(`[{"op":"add","path":"/metadata/annotations/%s","value":%q}]`, key, *value)
			case value == nil:
				text = fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, v1alpha1.AssignmentAnnotation)
			case kind == types.ApplyPatchType:
				yes := true
				options = metav1.PatchOptions{FieldManager: "forger", Force: &yes}
				text = fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"annotations":{%q:%q}}}`, p.Name, v1alpha1.AssignmentAnnotation, *value)
			default:
				text = fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AssignmentAnnotation, *value)
			}
			_, err := c.CoreV1().Pods(namespace).Patch(ctx, p.Name, kind, []byte(text), options, subs(sub)...)
			return err
		}
	}
	ways := map[string]attempt{
		"put":                   put,
		"json patch":            patch(types.JSONPatchType),
		"merge patch":           patch(types.MergePatchType),
		"strategic merge patch": patch(types.StrategicMergePatchType),
		"server-side apply":     patch(types.ApplyPatchType),
	}
	// The API server keeps everything but their own fields out of these two; then
	// nothing is refused, because nothing happens.
	dropped := map[string]bool{"ephemeralcontainers": true, "resize": true}
	for _, sub := range []string{"", "status", "ephemeralcontainers", "resize"} {
		for change, ch := range changes {
			for way, try := range ways {
				if way == "server-side apply" && ch.value == nil {
					continue // apply removes only what the same manager applied before, which cannot happen
				}
				for user := range users {
					t.Run(strings.Join([]string{"pods", sub, change, way, user}, "/"), func(t *testing.T) {
						err := try(t.Context(), clientFor(t, user), ch.pod, ch.value, sub)
						if !dropped[sub] {
							wantRefused(t, err)
						}
						now, err := clientFor(t, "").CoreV1().Pods(namespace).Get(t.Context(), ch.pod.Name, metav1.GetOptions{})
						if err != nil {
							t.Fatal(err)
						}
						before, had := ch.pod.Annotations[v1alpha1.AssignmentAnnotation]
						after, has := now.Annotations[v1alpha1.AssignmentAnnotation]
						if before != after || had != has {
							t.Errorf("the annotation is now %q (present: %v), was %q (present: %v)", after, has, before, had)
						}
					})
				}
			}
		}
	}
}

func subs(sub string) []string {
	if sub == "" {
		return nil
	}
	return []string{sub}
}

func TestAssignmentInBindings(t *testing.T) {
	ways := map[string]func(context.Context, *kubernetes.Clientset, *corev1.Binding) error{
		"pods/binding": func(ctx context.Context, c *kubernetes.Clientset, b *corev1.Binding) error {
			return c.CoreV1().Pods(namespace).Bind(ctx, b, metav1.CreateOptions{})
		},
		"bindings": func(ctx context.Context, c *kubernetes.Clientset, b *corev1.Binding) error {
			return c.CoreV1().RESTClient().Post().Namespace(namespace).Resource("bindings").Body(b).Do(ctx).Error()
		},
	}
	for way, bind := range ways {
		for user := range users {
			t.Run(way+"/"+user, func(t *testing.T) {
				admin, c := clientFor(t, ""), clientFor(t, user)
				name := "bind"
				if _, err := admin.CoreV1().Pods(namespace).Create(t.Context(), newPod(name), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				defer func() {
					zero := int64(0)
					if err := admin.CoreV1().Pods(namespace).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
						t.Error(err)
					}
				}()
				err := bind(t.Context(), c, newBinding(name, "node-a", real))
				scheduler := user == schedulerUser || user == controlPlane
				if !scheduler {
					wantRefused(t, err)
					// Another scheduler's plain binding is nobody's business.
					err = bind(t.Context(), c, newBinding(name, "node-a", ""))
				}
				if err != nil {
					t.Fatalf("a legal binding: %v", err)
				}
				p, err := admin.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				_, has := p.Annotations[v1alpha1.AssignmentAnnotation]
				if p.Spec.NodeName != "node-a" || has != scheduler {
					t.Errorf("node %q, annotated: %v", p.Spec.NodeName, has)
				}
			})
		}
	}
}

// Whoever leaves the annotation alone is not disturbed.
func TestLegalFlows(t *testing.T) {
	kubelet, alice := clientFor(t, kubeletUser), clientFor(t, "alice")
	flows := map[string]func(context.Context, *corev1.Pod) error{
		"kubelet patches the status": func(ctx context.Context, p *corev1.Pod) error {
			_, err := kubelet.CoreV1().Pods(namespace).Patch(ctx, p.Name, types.StrategicMergePatchType,
				fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"phase":"Running"}}`, p.UID), metav1.PatchOptions{}, "status")
			return err
		},
		"kubelet puts the status": func(ctx context.Context, p *corev1.Pod) error {
			p.Status.Phase = corev1.PodRunning
			_, err := kubelet.CoreV1().Pods(namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{})
			return err
		},
		"owner labels": func(ctx context.Context, p *corev1.Pod) error {
			_, err := alice.CoreV1().Pods(namespace).Patch(ctx, p.Name, types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"a":"b"},"annotations":{"other":"x"}}}`), metav1.PatchOptions{})
			return err
		},
		"owner puts the pod back as read": func(ctx context.Context, p *corev1.Pod) error {
			_, err := alice.CoreV1().Pods(namespace).Update(ctx, p, metav1.UpdateOptions{})
			return err
		},
		"ephemeral container": func(ctx context.Context, p *corev1.Pod) error {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", Image: "x", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
				SecurityContext: p.Spec.Containers[0].SecurityContext.DeepCopy(),
			}}}
			_, err := alice.CoreV1().Pods(namespace).UpdateEphemeralContainers(ctx, p.Name, p, metav1.UpdateOptions{})
			return err
		},
		"resize": func(ctx context.Context, p *corev1.Pod) error {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
			_, err := alice.CoreV1().Pods(namespace).UpdateResize(ctx, p.Name, p, metav1.UpdateOptions{})
			return err
		},
		"eviction": func(ctx context.Context, p *corev1.Pod) error {
			return alice.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{
				ObjectMeta:    metav1.ObjectMeta{Name: p.Name, Namespace: namespace},
				DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}},
			})
		},
		"deletion with a finalizer": func(ctx context.Context, p *corev1.Pod) error {
			if _, err := alice.CoreV1().Pods(namespace).Patch(ctx, p.Name, types.MergePatchType,
				[]byte(`{"metadata":{"finalizers":["kubevfio.io/test"]}}`), metav1.PatchOptions{}); err != nil {
				return err
			}
			if err := alice.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil {
				return err
			}
			_, err := alice.CoreV1().Pods(namespace).Patch(ctx, p.Name, types.MergePatchType,
				[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			return err
		},
		"mirror pod without the annotation": func(ctx context.Context, _ *corev1.Pod) error {
			m := newPod("mirror")
			m.Spec.NodeName = "node-a"
			m.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"}
			_, err := kubelet.CoreV1().Pods(namespace).Create(ctx, m, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		},
	}
	i := 0
	for name, flow := range flows {
		i++
		t.Run(name, func(t *testing.T) {
			p := newPod(fmt.Sprintf("legal-%d", i))
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}
			p, err := alice.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			scheduler := clientFor(t, schedulerUser)
			if err := scheduler.CoreV1().Pods(namespace).Bind(t.Context(), newBinding(p.Name, "node-a", real), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if p, err = alice.CoreV1().Pods(namespace).Get(t.Context(), p.Name, metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := flow(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			p, err = alice.CoreV1().Pods(namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Annotations[v1alpha1.AssignmentAnnotation]; got != real {
				t.Errorf("assignment is now %q", got)
			}
		})
	}
}

// A template may hold the annotation (somebody copied a pod): the pods made of it may not.
func TestTemplateIsHarmless(t *testing.T) {
	c := clientFor(t, "alice")
	tmpl := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: "copied"}}
	tmpl.Template.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: forged}
	tmpl.Template.Spec = newPod("x").Spec
	if _, err := c.CoreV1().PodTemplates(namespace).Create(t.Context(), tmpl, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatal(err)
	}
	p := newPod("from-template")
	p.Annotations = tmpl.Template.Annotations
	_, err := clientFor(t, "system:kube-controller-manager").CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{})
	wantRefused(t, err)
}
