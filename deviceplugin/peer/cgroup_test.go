package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	uid = "1f0c9a7e-5a0a-4f0e-9d54-7e2f3c1b9a10"
	cid = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func TestParseCgroup(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	other := "2f0c9a7e-5a0a-4f0e-9d54-7e2f3c1b9a10"
	for name, tc := range map[string]struct {
		text, uid, cid string
		err            error
	}{
		"v2 cgroupfs burstable":   {text: "0::/kubepods/burstable/pod" + uid + "/" + cid + "\n", uid: uid, cid: cid},
		"v2 cgroupfs guaranteed":  {text: "0::/kubepods/pod" + uid + "/" + cid + "\n", uid: uid, cid: cid},
		"v2 systemd":              {text: "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + cid + ".scope\n", uid: uid, cid: cid},
		"v2 systemd guaranteed":   {text: "0::/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + cid + ".scope\n", uid: uid, cid: cid},
		"v2 systemd, other root":  {text: "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + under + ".slice/crio-" + cid + ".scope\n", uid: uid, cid: cid},
		"below the container":     {text: "0::/kubepods/pod" + uid + "/" + cid + "/libvirt/qemu\n", uid: uid, cid: cid},
		"v1":                      {text: "12:memory:/kubepods/burstable/pod" + uid + "/" + cid + "\n11:cpu,cpuacct:/kubepods/burstable/pod" + uid + "/" + cid + "\n1:name=systemd:/\n", uid: uid, cid: cid},
		"static pod":              {text: "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/" + cid + "\n", uid: "0123456789abcdef0123456789abcdef", cid: cid},
		"the pod's own cgroup":    {text: "0::/kubepods/pod" + uid + "\n", uid: uid},
		"a pod within a pod":      {text: "0::/kubepods/pod" + uid + "/" + cid + "/kubepods/pod" + other + "/" + cid + "\n", uid: uid, cid: cid},
		"no pod":                  {text: "0::/system.slice/ssh.service\n", err: ErrNotPod},
		"a pod's name elsewhere":  {text: "0::/user.slice/pod" + uid + "/" + cid + "\n", err: ErrNotPod},
		"two pods":                {text: "2:memory:/kubepods/pod" + uid + "/" + cid + "\n1:cpu:/kubepods/pod" + other + "/" + cid + "\n", err: ErrNotPod},
		"not a UID":               {text: "0::/kubepods/podx/" + cid + "\n", err: ErrNotPod},
		"relative, another space": {text: "0::/../../pod" + uid + "\n", err: ErrNotPod},
		"empty":                   {err: ErrNotPod},
	} {
		t.Run(name, func(t *testing.T) {
			u, c, err := ParseCgroup(tc.text)
			if u != tc.uid || c != tc.cid || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %q, %v; want %q, %q, %v", u, c, err, tc.uid, tc.cid, tc.err)
			}
		})
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add("0::/kubepods/burstable/pod" + uid + "/" + cid + "\n")
	f.Add("0::/kubepods.slice/kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/cri-containerd-" + cid + ".scope\n")
	f.Fuzz(func(t *testing.T, text string) {
		u, c, err := ParseCgroup(text)
		if (err == nil) != (u != "") {
			t.Fatalf("UID %q with error %v", u, err)
		}
		if err != nil && (c != "" || !errors.Is(err, ErrNotPod)) {
			t.Fatalf("container %q, error %v", c, err)
		}
		if u != "" && validUID(u) != u {
			t.Fatalf("bad UID %q", u)
		}
		if u != "" && !strings.Contains(text, "kubepods") {
			t.Fatalf("pod %q outside kubepods", u)
		}
		if c != "" && len(c) != 64 {
			t.Fatalf("bad container %q", c)
		}
	})
}

// TestIdentify asks the kernel about this very process, with a /proc in which it
// is in a pod.
func TestIdentify(t *testing.T) {
	proc := t.TempDir()
	dir := filepath.Join(proc, itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup", "0::/kubepods/pod"+uid+"/"+cid+"\n")
	write("stat", itoa(os.Getpid())+" (a ) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p, err := Identify(conn, proc)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.PID != os.Getpid() || p.PodUID != uid || p.ContainerID != cid || int(p.UID) != os.Getuid() {
		t.Errorf("identified %+v", p)
	}
	if err := p.Alive(); err != nil {
		t.Errorf("alive: %v", err)
	}
	// Without a pidfd the start time tells a reused process ID.
	old := &Peer{PID: os.Getpid(), proc: proc}
	if err := old.read(); err != nil {
		t.Fatal(err)
	}
	write("stat", itoa(os.Getpid())+" (other) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9999 0 0\n")
	if err := old.Alive(); !errors.Is(err, ErrGone) {
		t.Errorf("another process under the ID: %v, want %v", err, ErrGone)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}
