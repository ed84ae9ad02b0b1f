package launcher

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const featuresSpec = `  devices:
    autoattachGraphicsDevice: true
    tpm: {}
    rng: {}
    panicDevices: [{model: pvpanic}]
    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}}
    - {name: default, passt: {}}
    disks:
    - {name: image, serial: from-image}
    - {name: block, serial: from-block}
    - {name: empty, serial: from-empty}
    filesystems:
    - {name: shared, virtiofs: {}}
networks:
- {name: default, pod: {}}
volumes:
- name: image
  containerDisk: {image: localhost/kubevfio/guest:dev, path: /boot/initrd}
- name: block
  persistentVolumeClaim: {claimName: block}
- name: empty
  emptyDisk: {capacity: 64Mi}
- name: shared
  emptyDir: {}`

// TestFeatures runs what needs help from the node or from processes beside QEMU
// in one guest, without any privilege: huge pages, a container disk, a block
// volume, virtiofs, a TPM, the pod's network, a screen, a terminal.
func TestFeatures(t *testing.T) {
	name := "features"
	block := blockClaim(t, "block")
	// An uncompressed kernel (booted by PVH) switches ACPI off when there is a TPM.
	spec := strings.Replace(strings.Replace(guest("256Mi", "", featuresSpec), "/boot/vmlinux,", "/boot/vmlinuz,", 1), "memory: {guest: 256Mi}", "memory: {guest: 256Mi, hugepages: {pageSize: 2Mi}}", 1)
	spec = strings.Replace(spec, "kubevfio.passt=off", "kubevfio.passt=dhcp", 1)
	create(t, scenario.VMPod{
		Name: name, Spec: spec, Memory: "640Mi", TTY: true,
		Limits: map[string]string{vfResource: "1", "hugepages-2Mi": "256Mi"},
		Volumes: map[string]corev1.VolumeSource{
			"/volumes/image":  {Image: &corev1.ImageVolumeSource{Reference: "localhost/kubevfio/guest:dev", PullPolicy: corev1.PullIfNotPresent}},
			"/volumes/shared": {EmptyDir: &corev1.EmptyDirVolumeSource{}},
			"/tmp":            {EmptyDir: &corev1.EmptyDirVolumeSource{}}, // for the TPM
		},
		BlockAt: map[string]corev1.VolumeSource{"/dev/volumes/block": {PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: block}}},
	})
	g := up(t, name)
	for _, serial := range []string{"from-image", "from-block", "from-empty"} {
		if !g.Contains(fmt.Sprintf("serial=%q", serial)) {
			t.Errorf("the guest has no disk with the serial number %s", serial)
		}
	}
	if !g.Contains("KUBEVFIO-GUEST passt ip=") {
		t.Errorf("no address on the pod's network: %s", g.Passt)
	}
	typed(t, name, "busybox mkdir -p /tmp/s; busybox mount -t virtiofs shared /tmp/s && echo from-the-guest >/tmp/s/file; echo virtiofs-done-$((1+1))")
	says(t, name, "virtiofs-done-2")
	out, err := env.Run(t.Context(), "-n", namespace, "exec", name, "--", "cat", "/volumes/shared/file")
	if err != nil || !strings.Contains(out, "from-the-guest") {
		t.Errorf("the shared folder has %q, %v", out, err)
	}
	typed(t, name, `printf "tpm-%s\n" $(busybox ls /sys/firmware/acpi/tables | busybox grep -cx TPM2)`)
	says(t, name, "tpm-1")
	typed(t, name, "for d in /sys/block/vd*; do [ $(cat $d/serial) = from-block ] && echo to-the-block-volume | busybox dd of=/dev/${d##*/} conv=fsync 2>/dev/null; done; echo block-done-$((1+1))")
	says(t, name, "block-done-2")
	if out, err := scenario.NodeOutput(t.Context(), lab, node(), "head", "-c", "19", blockFile); err != nil || out != "to-the-block-volume" {
		t.Errorf("the block volume begins with %q, %v", out, err)
	}
	var huge uint64
	p, err := env.Pod(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	if huge, err = scenario.CgroupBytes(t.Context(), lab, p, "hugetlb.2MB.current"); err != nil || huge != 256<<20 {
		t.Errorf("%d bytes of huge pages in use, %v; want 256 MiB", huge, err)
	}
	checkOverhead(t, name, spec, 256<<20)
	t.Run("screen", func(t *testing.T) { checkScreen(t, name) })
	t.Run("attach", func(t *testing.T) { checkAttach(t, name) })

	// In order, and nothing is left.
	if err := env.Core.CoreV1().Pods(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := env.WaitGone(t.Context(), 2*time.Minute, namespace, name); err != nil {
		t.Fatal(err)
	}
	left, err := scenario.Processes(t.Context(), lab, p)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// blockFile backs the block volume on the node.
const blockFile = "/var/lib/kubevfio-e2e-block"

// blockClaim makes a local block volume on the node and a claim for it.
func blockClaim(t *testing.T, name string) string {
	t.Helper()
	device, err := scenario.NodeOutput(t.Context(), lab, node(), "sh", "-c",
		"modprobe loop; truncate -s 32M "+blockFile+" && losetup --show --find "+blockFile)
	if err != nil {
		t.Fatal(err)
	}
	device = strings.TrimSpace(device)
	mode, class, size := corev1.PersistentVolumeBlock, "e2e-local", resource.MustParse("32Mi")
	_, err = env.Core.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "e2e-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: size}, VolumeMode: &mode, StorageClassName: class,
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: device}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{node()}}},
			}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = env.Core.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeMode: &mode, StorageClassName: &class, VolumeName: "e2e-" + name,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := env.Core.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if err := env.Core.CoreV1().PersistentVolumes().Delete(ctx, "e2e-"+name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := scenario.NodeOutput(ctx, lab, node(), "sh", "-c", "losetup -d "+device+"; rm -f "+blockFile); err != nil {
			t.Error(err)
		}
	})
	return name
}

// checkScreen looks at the guest's screen.
func checkScreen(t *testing.T, name string) {
	out, err := env.Run(t.Context(), "-n", namespace, "exec", name, "--", "/usr/bin/kubevfio-launcher", "proxy", "screenshot")
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader([]byte(out)))
	if err != nil {
		t.Fatalf("the screenshot of %d bytes: %v", len(out), err)
	}
	colours := map[string]bool{}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			colours[fmt.Sprint(r, g, b)] = true
		}
	}
	t.Logf("a screen of %v with %d colours", img.Bounds().Size(), len(colours))
	if img.Bounds().Dx() < 320 || len(colours) < 2 {
		t.Error("the screen shows nothing")
	}
}

// checkAttach types on the console through kubectl attach -it, from a terminal.
func checkAttach(t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// script(1) gives kubectl a terminal, as a person's shell does.
	cmd := exec.CommandContext(ctx, "script", "-qec",
		fmt.Sprintf("%s --kubeconfig=%s -n %s attach -it %s", lab.Kubectl(), lab.Kubeconfig(), namespace, name), "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // by itself it ends with the container only
		_ = cmd.Wait()
	}()
	seen := 0 // what was looked at: an earlier prompt answers nothing
	see := func(send, want string) {
		t.Helper()
		err := scenario.Poll(ctx, time.Minute, "attach shows "+want, func(context.Context) (bool, string, error) {
			// The stream may not have been there when the keys were sent before.
			if _, err := io.WriteString(in, send); err != nil {
				return false, "", err
			}
			time.Sleep(2 * time.Second)
			text := out.String()
			at := strings.Index(text[seen:], want)
			if at >= 0 {
				seen += at + len(want)
			}
			return at >= 0, text, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	see("printf one-%d-here 42\r", "one-42-here")
	// Ctrl-C is the guest's, not the launcher's nor kubectl's: it ends the
	// guest's foreground process, here cat.
	see("cat\r", "cat")
	see("\x03", "kubevfio-guest#")
	see("printf two-%d-here 42\r", "two-42-here")
	// Raw: the guest's colours come through, the launcher's own log does not.
	see("printf 'esc-\\033]0;title\\007-end'\r", "esc-\x1b]0;title\x07-end")
	if strings.Contains(out.String(), "kubevfio-launcher:") {
		t.Error("the launcher's own log is on the terminal")
	}
	st := phase(t, name, launcherrpcv1.PhaseRunning)
	if st.Supervisor.Restarts != 0 {
		t.Errorf("the supervisor died %d times", st.Supervisor.Restarts)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
