package handoff

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkPreferred answers for 4,096 offered units, with and without an
// assignment.
func BenchmarkPreferred(b *testing.B) {
	var all []string
	for i := range 4096 {
		all = append(all, fmt.Sprintf("0000:%02x:%02x.%d", i>>8, i>>3&31, i&7))
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for name, pod := range map[string]Pod{"assigned": mk("a", 1, all[7]), "unassigned": mk("a", 1)} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, false, []Pod{pod}, nil)
			r.SetPool(gpu, false, all)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Preferred(b.Context(), gpu, all, nil, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
