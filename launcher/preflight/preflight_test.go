package preflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/topology"
)

func address(t *testing.T, s string) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAgree(t *testing.T) {
	a, b := address(t, "0000:41:10.0"), address(t, "0000:41:10.2")
	one := &v1alpha1.Assignment{Containers: map[string]map[string][]topology.Address{"compute": {"r": {a, b}}}}
	for name, tc := range map[string]struct {
		assignment *v1alpha1.Assignment
		env        Given
		container  string
		want       Given
		says       []string // of the error
	}{
		"no assignment":             {env: Given{"r": {a}}, want: Given{"r": {a}}},
		"equal, order of decision":  {assignment: one, env: Given{"r": {b, a}}, want: Given{"r": {a, b}}},
		"missing":                   {assignment: one, env: Given{"r": {a}}, says: []string{"0000:41:10.2", "r was assigned"}},
		"extra resource":            {assignment: one, env: Given{"r": {a, b}, "s": {address(t, "0000:42:00.0")}}, says: []string{"s in the environment", "0000:42:00.0"}},
		"nothing given":             {assignment: one, env: Given{}, says: []string{"none"}},
		"other container":           {assignment: one, env: Given{"r": {a, b}}, container: "side", says: []string{"container side"}},
		"named container":           {assignment: one, env: Given{"r": {a, b}}, container: "compute", want: Given{"r": {a, b}}},
		"assignment of no device":   {assignment: &v1alpha1.Assignment{}, env: Given{}, want: Given{}},
		"device without assignment": {assignment: &v1alpha1.Assignment{}, env: Given{"r": {a}}, says: []string{"names no container"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Agree(tc.assignment, tc.env, tc.container)
			check(t, err, launcherrpcv1.ReasonAssignment, tc.says)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// check compares an error with what it must say; nothing to say means none.
func check(t *testing.T, err error, reason string, says []string) {
	t.Helper()
	if len(says) == 0 {
		if err != nil {
			t.Fatalf("unexpected error: %v", err)
		}
		return
	}
	var f *failure.Error
	if !errors.As(err, &f) || f.Reason != reason {
		t.Fatalf("error %v, want reason %s", err, reason)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

func TestViable(t *testing.T) {
	a, b, c := address(t, "0000:41:10.0"), address(t, "0000:41:10.2"), address(t, "0000:40:01.0")
	host := func(fs ...topology.Function) *topology.Host { return &topology.Host{Functions: fs} }
	f := func(a topology.Address, driver string, group int) topology.Function {
		return topology.Function{Address: a, Driver: driver, IOMMUGroup: group}
	}
	for name, tc := range map[string]struct {
		host *topology.Host
		says []string
	}{
		"alone":                  {host: host(f(a, "vfio-pci", 3), f(b, "igb", 4))},
		"with unbound companion": {host: host(f(a, "vfio-pci", 3), f(b, "", 3), f(c, "pcieport", 3))},
		"variant driver":         {host: host(f(a, "mlx5_vfio_pci", 3))},
		"vendor driver":          {host: host(topology.Function{Address: a, Driver: "nvidia", IOMMUGroup: 3, VFIODev: "vfio0"})},
		"gone":                   {host: host(), says: []string{"0000:41:10.0", "/sys"}},
		"no IOMMU":               {host: host(f(a, "vfio-pci", -1)), says: []string{"IOMMU is off"}},
		"unbound":                {host: host(f(a, "", 3)), says: []string{"no driver"}},
		"in use":                 {host: host(f(a, "igbvf", 3)), says: []string{"bound to igbvf"}},
		"foreign driver":         {host: host(f(a, "vfio-pci", 3), f(b, "snd_hda_intel", 3)), says: []string{"group 3", "0000:41:10.2", "snd_hda_intel"}},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, Viable(tc.host, Given{"r": {a}}), launcherrpcv1.ReasonDeviceNotViable, tc.says)
		})
	}
}

func TestNodes(t *testing.T) {
	a := address(t, "0000:41:10.0")
	h := &topology.Host{Functions: []topology.Function{{Address: a, Driver: "vfio-pci", IOMMUGroup: 3}}}
	dev := t.TempDir()
	n := Nodes{Dev: dev}
	check(t, n.KVM(), launcherrpcv1.ReasonDeviceNotViable, []string{"devices.kubevfio.io/kvm"})
	check(t, n.VFIO(h, Given{"r": {a}}), launcherrpcv1.ReasonDeviceNotViable, []string{"vfio/vfio", "not in this container"})
	if err := os.Mkdir(filepath.Join(dev, "vfio"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kvm", "vfio/vfio", "vfio/3"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check(t, n.KVM(), "", nil)
	check(t, n.VFIO(h, Given{"r": {a}}), "", nil)
	check(t, n.VFIO(h, nil), "", nil)
}

type agent struct{ err error }

func (a agent) RaiseMemoryLock(context.Context, uint64, uint32) (uint64, error) { return 0, a.err }

func TestMemoryLock(t *testing.T) {
	have, err := hardMemoryLock()
	if err != nil {
		t.Fatal(err)
	}
	if have == ^uint64(0) {
		t.Skip("locked memory is not limited here")
	}
	ctx := context.Background()
	check(t, MemoryLock(ctx, agent{errors.New("not asked")}, 0, 0), "", nil)
	check(t, MemoryLock(ctx, agent{errors.New("not asked")}, have, 0), "", nil)
	check(t, MemoryLock(ctx, agent{errors.New("no agent")}, have+1, 0), launcherrpcv1.ReasonMemoryLock, []string{"no agent", "may lock"})
	check(t, MemoryLock(ctx, agent{}, have+1, 0), launcherrpcv1.ReasonMemoryLock, []string{"answered"})
}

func TestTPM(t *testing.T) {
	dir := t.TempDir()
	if err := TPM(dir); err != nil {
		t.Errorf("a folder that can be written: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	err := TPM(filepath.Join(dir, "absent"))
	var f *failure.Error
	if !errors.As(err, &f) || f.Reason != launcherrpcv1.ReasonHostCannotHold || f.Field != "spec.domain.devices.tpm" {
		t.Errorf("error = %v", err)
	}
}
