package policydiff

import (
	"flag"
	"os"
	"testing"

	"github.com/kubevfio/kubevfio/test/integration/kubeletns"
)

var (
	podsFlag = flag.Int("pods", 2000, "placements to compare, over all policies")
	seedFlag = flag.Uint64("seed", 0, "seed to replay; 0 takes a new one")
)

func TestMain(m *testing.M) { os.Exit(kubeletns.Main(m)) }
