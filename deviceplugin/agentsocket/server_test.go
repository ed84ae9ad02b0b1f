package agentsocket

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/api/agentrpc/client"
	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
)

const (
	podUID = "1f0c9a7e-5a0a-4f0e-9d54-7e2f3c1b9a10"
	vf     = "0000:21:10.0"
)

type pods struct {
	pod Pod
	err error
}

func (p pods) Pod(_ context.Context, uid, _ string) (Pod, error) {
	if uid != podUID {
		return Pod{}, ErrUnknownPod
	}
	return p.pod, p.err
}

type nics struct {
	set *agentrpc.ConfigureVFRequest
	err error
}

func (n *nics) FindVF(a string) (VF, error) {
	if a != vf && a != "0000:21:10.2" {
		return VF{}, ErrNoVF
	}
	return VF{Unit: a, PF: "eth1", Index: 3}, nil
}

func (n *nics) SetVF(_ context.Context, _ VF, r *agentrpc.ConfigureVFRequest) error {
	n.set = r
	return n.err
}

// serve runs a server in whose eyes this process is in a pod.
func serve(t *testing.T, p pods, n *nics, cgroup string) *client.Client {
	t.Helper()
	return client.New(serveWith(t, p, n, cgroup, nil))
}

// serveWith is serve; it gives the socket's path. Beside it, fd.sock hands out what
// open opens.
func serveWith(t *testing.T, p pods, n *nics, cgroup string, open func() (*os.File, error)) string {
	t.Helper()
	proc := t.TempDir()
	own := filepath.Join(proc, strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"cgroup": []byte(cgroup), "stat": stat} {
		if err := os.WriteFile(filepath.Join(own, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	s := New(Config{Version: "v", Node: "n", Dir: dir, Name: "a.sock", Proc: proc, Pods: p, VFs: n, IOMMUFDName: "fd.sock", OpenIOMMUFD: open})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("server ended with %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "fd.sock")); err == nil {
			break
		}
	}
	return filepath.Join(dir, "a.sock")
}

const inPod = "0::/kubepods/pod" + podUID + "/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"

func reason(err error) agentrpc.Reason { return client.RefusalOf(err).GetReason() }

func TestGetInfo(t *testing.T) {
	c := serve(t, pods{pod: Pod{Namespace: "ns", Name: "vm", LockBase: 1 << 30, Units: []string{vf}}}, &nics{}, inPod)
	got, err := c.GetInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetPodUid() != podUID || got.GetNode() != "n" || len(got.GetDevices()) != 1 || got.GetMemoryLockMax() != 2<<30 {
		t.Errorf("info %v", got)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	for name, cgroup := range map[string]string{
		"no pod":      "0::/user.slice\n",
		"another pod": "0::/kubepods/pod2f0c9a7e-5a0a-4f0e-9d54-7e2f3c1b9a10/x\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, pods{}, &nics{}, cgroup)
			_, err := c.RaiseMemoryLock(t.Context(), 1, 0)
			if !errors.Is(err, client.ErrRefused) || reason(err) != agentrpc.Reason_REASON_UNKNOWN_PEER {
				t.Errorf("%v, reason %v", err, reason(err))
			}
		})
	}
}

func TestRaiseMemoryLock(t *testing.T) {
	holder := Pod{Namespace: "ns", Name: "vm", LockBase: 1 << 30, Units: []string{vf}}
	for name, tc := range map[string]struct {
		pod    Pod
		bytes  uint64
		behind uint32
		reason agentrpc.Reason
	}{
		"too much":            {pod: holder, bytes: 2<<30 + 1, reason: agentrpc.Reason_REASON_OVER_LIMIT},
		"more than it holds":  {pod: holder, bytes: 1, behind: 2, reason: agentrpc.Reason_REASON_INVALID},
		"no device":           {pod: Pod{LockBase: 1 << 30}, bytes: 1, reason: agentrpc.Reason_REASON_NOT_OWNER},
		"no memory limit":     {pod: Pod{Units: []string{vf}}, bytes: 1, reason: agentrpc.Reason_REASON_OVER_LIMIT},
		"what it has already": {pod: holder, bytes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var before unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before); err != nil {
				t.Fatal(err)
			}
			c := serve(t, pods{pod: tc.pod}, &nics{}, inPod)
			hard, err := c.RaiseMemoryLock(t.Context(), tc.bytes, tc.behind)
			if reason(err) != tc.reason || (err != nil) != (tc.reason != 0) {
				t.Fatalf("%v, reason %v, want %v", err, reason(err), tc.reason)
			}
			if err == nil && hard < before.Max {
				t.Errorf("hard limit %d, was %d", hard, before.Max)
			}
		})
	}
}

func TestLockLimit(t *testing.T) {
	for _, tc := range []struct {
		base    uint64
		devices int
		want    uint64
	}{
		{1 << 30, 0, 2 << 30}, {1 << 30, 1, 2 << 30}, {1 << 30, 3, 4 << 30},
		{math.MaxUint64, 2, math.MaxUint64}, {math.MaxUint64, 0, math.MaxUint64},
	} {
		if got := LockLimit(tc.base, tc.devices); got != tc.want {
			t.Errorf("LockLimit(%d, %d) = %d, want %d", tc.base, tc.devices, got, tc.want)
		}
	}
}

func TestConfigureVF(t *testing.T) {
	str, num, yes := func(s string) *string { return &s }, func(n uint32) *uint32 { return &n }, true
	for name, tc := range map[string]struct {
		req    *agentrpc.ConfigureVFRequest
		err    error
		reason agentrpc.Reason
	}{
		"own":                {req: &agentrpc.ConfigureVFRequest{Address: vf, Mac: str("02:00:00:00:00:01"), Vlan: num(7), Trust: &yes}},
		"another pod's":      {req: &agentrpc.ConfigureVFRequest{Address: "0000:21:10.2"}, reason: agentrpc.Reason_REASON_NOT_OWNER},
		"no function":        {req: &agentrpc.ConfigureVFRequest{Address: "0000:99:10.2"}, reason: agentrpc.Reason_REASON_NOT_OWNER},
		"not an address":     {req: &agentrpc.ConfigureVFRequest{Address: "21:10"}, reason: agentrpc.Reason_REASON_INVALID},
		"group MAC":          {req: &agentrpc.ConfigureVFRequest{Address: vf, Mac: str("01:00:00:00:00:01")}, reason: agentrpc.Reason_REASON_INVALID},
		"VLAN out of range":  {req: &agentrpc.ConfigureVFRequest{Address: vf, Vlan: num(4095)}, reason: agentrpc.Reason_REASON_INVALID},
		"QoS without a VLAN": {req: &agentrpc.ConfigureVFRequest{Address: vf, Qos: num(3)}, reason: agentrpc.Reason_REASON_INVALID},
		"driver cannot":      {req: &agentrpc.ConfigureVFRequest{Address: vf, Trust: &yes}, err: ErrNotSupported, reason: agentrpc.Reason_REASON_NOT_SUPPORTED},
		"kernel refuses":     {req: &agentrpc.ConfigureVFRequest{Address: vf, Trust: &yes}, err: unix.EINVAL, reason: agentrpc.Reason_REASON_KERNEL},
	} {
		t.Run(name, func(t *testing.T) {
			n := &nics{err: tc.err}
			c := serve(t, pods{pod: Pod{Namespace: "ns", Name: "vm", Units: []string{vf}}}, n, inPod)
			got, err := c.ConfigureVF(t.Context(), tc.req)
			if reason(err) != tc.reason || (err != nil) != (tc.reason != 0) {
				t.Fatalf("%v, reason %v, want %v", err, reason(err), tc.reason)
			}
			if err == nil && (got.GetPf() != "eth1" || got.GetIndex() != 3 || n.set.GetMac() != tc.req.GetMac()) {
				t.Errorf("answer %v, set %v", got, n.set)
			}
			if tc.err == nil && err != nil && n.set != nil {
				t.Errorf("set %v although refused", n.set)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	c := client.New(filepath.Join(t.TempDir(), "none.sock"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := c.GetInfo(ctx); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("%v, want %v", err, client.ErrUnavailable)
	}
}
