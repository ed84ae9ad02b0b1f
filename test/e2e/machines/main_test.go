package machines

import (
	"context"
	"testing"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
	"github.com/kubevfio/kubevfio/test/testbed"
)

const (
	namespace  = testbed.Namespace
	vfResource = testbed.VFResource
)

// The one lab of this package; TestMain makes it, tests only read it.
var (
	lab *cluster.Cluster
	env *scenario.Env
)

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Options{
		Lab:     cluster.Config{Nodes: 2},
		Offered: map[string]int64{vfResource: 2, v1alpha1.ResourceKVM: 2},
		Installed: func(ctx context.Context, b *testbed.Bed) error {
			_, err := b.Env.Run(ctx, "-n", v1alpha1.SystemNamespace, "rollout", "status", "deployment/kubevfio-controller", "--timeout=4m")
			return err
		},
	}, func(b *testbed.Bed) { lab, env = b.Lab, b.Env })
}
