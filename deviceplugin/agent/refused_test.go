package agent

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestRefusedAlone(t *testing.T) {
	const vf = "example.com/vf"
	for name, tc := range map[string]struct {
		phase           corev1.PodPhase
		reason, message string
		wants           corev1.ResourceName
		told            bool
	}{
		"plugins are not back": {corev1.PodFailed, "UnexpectedAdmissionError",
			"Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices example.com/vf, which is unexpected", vf, true},
		"devices of before the reboot": {corev1.PodFailed, "UnexpectedAdmissionError",
			"Pod was rejected: Allocate failed due to previously allocated devices are no longer healthy; cannot allocate unhealthy devices example.com/vf, which is unexpected", vf, true},
		"too few": {corev1.PodFailed, "UnexpectedAdmissionError",
			"Pod was rejected: Allocate failed due to requested number of devices unavailable for example.com/vf. Requested: 1, Available: 0, which is unexpected", vf, true},
		"we refused it ourselves": {corev1.PodFailed, "UnexpectedAdmissionError",
			"Pod was rejected: Allocate failed due to rpc error: code = FailedPrecondition desc = no pod under admission matches: example.com/vf, which is unexpected", vf, false},
		"another's resource": {corev1.PodFailed, "UnexpectedAdmissionError",
			"Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices example.com/other, which is unexpected", "example.com/other", false},
		"another reason": {corev1.PodFailed, "Evicted", "no healthy devices present example.com/vf", vf, false},
		"running":        {corev1.PodRunning, "UnexpectedAdmissionError", "no healthy devices present example.com/vf", vf, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{Status: corev1.PodStatus{Phase: tc.phase, Reason: tc.reason, Message: tc.message}}
			p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{tc.wants: resource.MustParse("1")}}}}
			got := refusedAlone(p, []string{vf, "example.com/gpu"})
			if (got != "") != tc.told {
				t.Fatalf("said %q, want something: %v", got, tc.told)
			}
			if tc.told && (!strings.HasPrefix(got, vf+": ") || !strings.Contains(got, tc.message)) {
				t.Errorf("the event does not name resource and kubelet's message: %q", got)
			}
		})
	}
}
