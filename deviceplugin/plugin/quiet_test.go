package plugin

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// sink keeps garbage from being left out by the compiler.
var sink []byte

// TestQuiet: garbage is collected a moment after it was asked for, where there is
// enough of it.
func TestQuiet(t *testing.T) {
	// No collection but ours, and a goal to be a quarter of the way to.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	runs := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumGC
	}
	var q quiet
	runtime.GC()
	if worthCollecting() {
		t.Error("worth it right after a collection")
	}
	for range 1000 {
		if worthCollecting() {
			break
		}
		sink = make([]byte, 64<<10)
	}
	if !worthCollecting() {
		t.Fatal("64 MB of garbage are not worth it")
	}
	before := runs()
	for range 10 { // calls in one admission
		q.soon()
	}
	for deadline := time.Now().Add(10 * time.Second); runs() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not collected")
		}
	}
	if worthCollecting() {
		t.Error("still worth it")
	}
}
