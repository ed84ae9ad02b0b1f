package podsource

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkReadPods reads the list of a full node of which one pod has changed.
func BenchmarkReadPods(b *testing.B) {
	var list [2][]byte
	for i := range list {
		var pods [][]byte
		for n := range 110 {
			phase := "Running"
			if n == 0 {
				phase = fmt.Sprint("Phase", i)
			}
			pods = append(pods, fmt.Appendf(nil, `{"metadata":{"uid":"u%d","annotations":{"a":"%s"}},"status":{"phase":"%s"}}`, n, strings.Repeat("x", 5000), phase))
		}
		list[i] = fmt.Appendf(nil, `{"items":[%s]}`, bytes.Join(pods, []byte(",")))
	}
	r := newPodReader()
	b.SetBytes(int64(len(list[0])))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.read(list[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}
