package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// counting is a client that counts writes and can fail.
type counting struct {
	client.Client
	writes int
	fail   error
}

func newClient(t *testing.T, objects ...client.Object) *counting {
	t.Helper()
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	c := &counting{}
	c.Client = interceptor.NewClient(fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).WithStatusSubresource(&v1alpha1.DevicePool{}).Build(), interceptor.Funcs{
		Create: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			c.writes++
			if c.fail != nil {
				return c.fail
			}
			return w.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			c.writes++
			if c.fail != nil {
				return c.fail
			}
			return w.Update(ctx, o, opts...)
		},
	})
	return c
}

func inventory(units int) v1alpha1.NodeInventorySpec {
	var s v1alpha1.NodeInventorySpec
	for i := range units {
		s.Units = append(s.Units, v1alpha1.InventoryUnit{ID: fmt.Sprintf("0000:%02x:00.0", i)})
	}
	return s
}

// An object is made, is written only when it changes, belongs to its node, and a
// foreign change is put right once the publisher looks again.
func TestInventory(t *testing.T) {
	c := newClient(t)
	p := New(c)
	node := Owner{Name: "n1", UID: "u1"}
	write := func(spec v1alpha1.NodeInventorySpec, o Owner, want bool) {
		t.Helper()
		wrote, err := p.Inventory(t.Context(), o, spec)
		if err != nil || wrote != want {
			t.Fatalf("wrote %t, %v; want %t", wrote, err, want)
		}
	}
	read := func() *v1alpha1.NodeInventory {
		t.Helper()
		inv := &v1alpha1.NodeInventory{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "n1"}, inv); err != nil {
			t.Fatal(err)
		}
		return inv
	}
	write(inventory(2), node, true)
	write(inventory(2), node, false)
	if c.writes != 1 {
		t.Errorf("%d writes", c.writes)
	}
	if diff := cmp.Diff([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "u1"}}, read().OwnerReferences); diff != "" {
		t.Errorf("owner (-want +got):\n%s", diff)
	}
	write(inventory(3), node, true)
	// The node was made anew.
	write(inventory(3), Owner{Name: "n1", UID: "u2"}, true)
	node.UID = "u2"
	// A second agent (after a restart) writes nothing that is there already.
	p = New(c)
	write(inventory(3), node, false)
	// Somebody meddles.
	inv := read()
	inv.Spec.Units = nil
	if err := c.Update(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	p.Forget()
	write(inventory(3), node, true)
	if got := len(read().Spec.Units); got != 3 {
		t.Errorf("%d units", got)
	}
}

// A write that fails is told, and the next call tries again though nothing changed.
func TestFailureIsTriedAgain(t *testing.T) {
	c := newClient(t)
	p := New(c)
	c.fail = errors.New("the API server is down")
	usage := v1alpha1.NodeUsageSpec{}
	node := Owner{Name: "n1", UID: "u1"}
	if _, err := p.Usage(t.Context(), node, usage); !errors.Is(err, ErrPublish) || !strings.Contains(err.Error(), "is down") || !strings.Contains(err.Error(), "n1") {
		t.Fatalf("error = %v", err)
	}
	c.fail = nil
	if wrote, err := p.Usage(t.Context(), node, usage); err != nil || !wrote {
		t.Errorf("wrote %t, %v", wrote, err)
	}
	if wrote, err := p.Usage(t.Context(), node, usage); err != nil || wrote {
		t.Errorf("wrote %t, %v without a change", wrote, err)
	}
}
