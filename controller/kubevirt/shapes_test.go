package kubevirt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Shapes in which people keep KubeVirt's objects. Each file of testdata/shapes is
// one; beside it are the notes and the result.
func TestShapes(t *testing.T) {
	files, err := filepath.Glob("testdata/shapes/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d shapes (%v)", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out, notes, err := Import(text)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, n := range notes {
				word := "changed"
				if n.Lost {
					word = "lost"
				}
				b.WriteString("# " + word + ": " + n.String() + "\n")
			}
			b.Write(out)
			golden := strings.TrimSuffix(f, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("the result differs from %s (-want +got; -update rewrites it):\n%s", golden, diff)
			}
		})
	}
}
