package launcherpod

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

var update = flag.Bool("update", false, "rewrite golden files")

func instance(t *testing.T, spec string) *v1alpha1.VirtualMachineInstance {
	t.Helper()
	vmi := &v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{
		Name: "web", Namespace: "vms", UID: "3c6f0c2e-0000-4000-8000-000000000001",
		Labels:      map[string]string{"app": "web"},
		Annotations: map[string]string{"owner": "alice", v1alpha1.AssignmentAnnotation: "forged", v1alpha1.AlignmentAnnotation: "required:switch"},
	}}
	if err := yaml.UnmarshalStrict([]byte(spec), &vmi.Spec); err != nil {
		t.Fatal(err)
	}
	return vmi
}

const small = `
domain:
  cpu: {cores: 2}
  memory: {guest: 512Mi}
  firmware:
    kernelBoot:
      kernelArgs: console=ttyS0
      container: {image: example.com/guest:1, kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd, imagePullSecret: pull}
  devices:
    alignment: required:root
    gpus: [{name: g0, deviceName: example.com/gpu}]
    hostDevices: [{name: h0, deviceName: example.com/gpu}]
    interfaces:
    - {name: vf, sriov: {deviceName: example.com/vf}}
    - {name: default, passt: {}, ports: [{port: 22}]}
networks:
- {name: default, pod: {}}
terminationGracePeriodSeconds: 20
readinessProbe: {tcpSocket: {port: 22}, initialDelaySeconds: 3}
nodeSelector: {zone: a}
`

const big = `
domain:
  cpu: {cores: 8, dedicatedCpuPlacement: true, isolateEmulatorThread: true}
  memory: {guest: 16Gi, hugepages: {pageSize: 1Gi}}
  firmware:
    kernelBoot:
      container: {image: example.com/guest:1, kernelPath: /boot/vmlinuz}
  devices:
    gpus: [{name: g0, deviceName: example.com/gpu}]
schedulerName: other
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
      - matchExpressions: [{key: gpu, operator: Exists}]
      - matchExpressions: [{key: old-gpu, operator: Exists}]
`

const disks = `
domain:
  memory: {guest: 1Gi}
  devices:
    disks:
    - {name: root, disk: {bus: virtio}}
    - {name: data, disk: {bus: virtio}}
    - {name: raw, disk: {bus: virtio}}
    - {name: scratch, disk: {bus: virtio}}
    - {name: init, disk: {bus: virtio}}
    filesystems:
    - {name: config, virtiofs: {}}
volumes:
- {name: root, containerDisk: {image: example.com/disk:1, imagePullPolicy: Always, imagePullSecret: pull}}
- {name: data, persistentVolumeClaim: {claimName: files}}
- {name: raw, dataVolume: {name: block}}
- {name: scratch, emptyDisk: {capacity: 1Gi}}
- {name: init, cloudInitNoCloud: {secretRef: {name: init-data}, networkDataSecretRef: {name: init-data}}}
- {name: config, configMap: {name: settings}}
accessCredentials:
- sshPublicKey: {source: {secret: {secretName: init-data}}, propagationMethod: {noCloud: {}}}
- sshPublicKey: {source: {secret: {secretName: keys}}, propagationMethod: {noCloud: {}}}
evictionStrategy: None
`

func TestBuildGolden(t *testing.T) {
	for name, tc := range map[string]struct {
		spec  string
		avoid []string
	}{
		"small": {spec: small},
		"disks": {spec: disks},
		"big":   {spec: big, avoid: []string{"node-a", "node-b"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod, err := Build(instance(t, tc.spec), Situation{Attempt: 2, Avoid: tc.avoid, BlockClaims: map[string]bool{"block": true}}, Options{Image: "example.com/launcher:1", PullPolicy: corev1.PullIfNotPresent})
			if err != nil {
				t.Fatal(err)
			}
			got, err := yaml.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("pod differs from %s (-want +got; -update rewrites it):\n%s", file, diff)
			}
			if _, err := vmspec.Decode([]byte(pod.Annotations[v1alpha1.VMAnnotation])); err != nil {
				t.Errorf("the launcher cannot decode the annotation: %v", err)
			}
			if _, ok := pod.Annotations[v1alpha1.AssignmentAnnotation]; ok {
				t.Error("the instance's assignment annotation reached the pod")
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	base := "domain: {memory: {guest: 512Mi}, firmware: {kernelBoot: {container: {image: x, kernelPath: /k}}}, devices: {%}}\n"
	for name, tc := range map[string]struct {
		spec  string
		class error
		text  string
	}{
		"no memory": {"domain: {firmware: {kernelBoot: {container: {image: x, kernelPath: /k}}}}", vmspec.ErrInvalid, "spec.domain.memory.guest"},
		"containerDisk without image": {
			strings.Replace(base, "%", "disks: [{name: root}]", 1) + "volumes: [{name: root, containerDisk: {}}]",
			vmspec.ErrInvalid, "spec.volumes[0].containerDisk.image",
		},
		"multus": {
			strings.Replace(base, "%", "interfaces: [{name: a, sriov: {}}]", 1) + "networks: [{name: a, multus: {networkName: n}}]",
			ErrUnsupported, "sriov.deviceName",
		},
		"no image": {"domain: {memory: {guest: 512Mi}, firmware: {kernelBoot: {container: {kernelPath: /k}}}}", vmspec.ErrInvalid, "kernelBoot.container.image"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(instance(t, tc.spec), Situation{Attempt: 1}, Options{Image: "l"})
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error = %v; want class %v with %q", err, tc.class, tc.text)
			}
		})
	}
}

func TestName(t *testing.T) {
	vmi := instance(t, small)
	if first, again := Name(vmi, 1), Name(vmi, 1); first != again || first == Name(vmi, 2) {
		t.Error("names must depend on the attempt, and on nothing else")
	}
	vmi.Name = strings.Repeat("a", 51) + "-" + strings.Repeat("b", 60)
	if n := Name(vmi, 1); len(n) > 63 || strings.Contains(n, "--") {
		t.Errorf("name %q: %d characters", n, len(n))
	}
}

func TestGracePeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		spec, asked *int64
		want        int64
	}{
		"default":   {nil, nil, 45},
		"spec":      {new(int64(100)), nil, 115},
		"asked":     {new(int64(100)), new(int64(5)), 20},
		"force":     {new(int64(100)), new(int64(0)), 1},
		"spec zero": {new(int64(0)), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := GracePeriod(&v1alpha1.VirtualMachineInstanceSpec{TerminationGracePeriodSeconds: tc.spec}, tc.asked)
			if got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}
