package kubeletdiff

import (
	"flag"
	"os"
	"testing"

	"github.com/kubevfio/kubevfio/test/integration/kubeletns"
)

var (
	stepsFlag = flag.Int("steps", 2500, "random steps over all topology policies")
	seedFlag  = flag.Uint64("seed", 0, "seed to replay; 0 takes a new one")
	traceFlag = flag.Bool("trace", false, "print each step")
)

func TestMain(m *testing.M) { os.Exit(kubeletns.Main(m)) }
