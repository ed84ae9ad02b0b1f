package trim

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smaps = `00400000-00e00000 r-xp 00000000 fe:00 1 /usr/bin/kubevfio-launcher
Rss:                8000 kB
Private_Clean:      8000 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
00e00000-00f00000 r--p 00a00000 fe:00 1 /usr/bin/kubevfio-launcher
Rss:                 100 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
00f00000-00f80000 rw-p 00b00000 fe:00 1 /usr/bin/kubevfio-launcher
Rss:                 100 kB
Private_Dirty:         0 kB
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Rss:                  64 kB
Private_Dirty:        64 kB
7f0000200000-7f0000300000 r--p 00000000 fe:00 2 /usr/lib/libc.so.6
Rss:                  12 kB
Private_Dirty:         0 kB
Anonymous:             8 kB
7f0000400000-7f0000500000 r--s 00000000 fe:00 3 /usr/lib/gconv.cache
Rss:                  12 kB
Private_Dirty:         0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
Rss:                   4 kB
Private_Dirty:         0 kB
`

func TestClean(t *testing.T) {
	maps, err := parse(strings.NewReader(smaps))
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, m := range maps {
		if m.clean() {
			got = append(got, m.start)
		}
	}
	if d := cmp.Diff([]uint64{0x400000}, got); d != "" {
		t.Errorf("mappings that may be dropped (-want +got):\n%s", d)
	}
}

// TestIdle drops the test's own text and goes on running.
func TestIdle(t *testing.T) {
	dropped, err := Idle()
	if err != nil {
		t.Fatal(err)
	}
	if dropped == 0 {
		t.Error("nothing was dropped, not even this program's text")
	}
	if _, err := os.ReadFile("/proc/self/status"); err != nil {
		t.Fatal(err)
	}
}
