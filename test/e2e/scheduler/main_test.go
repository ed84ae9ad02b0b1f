package scheduler

import (
	"testing"

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
		Lab:     cluster.Config{Nodes: 1},
		Offered: map[string]int64{vfResource: 2},
	}, func(b *testbed.Bed) { lab, env = b.Lab, b.Env })
}
