package testbed

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
)

func TestFromEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want Options
		bad  bool
	}{
		"nothing": {want: Options{Lab: cluster.Config{Nodes: 1}}},
		"all": {
			env:  map[string]string{"E2E_NODES": "3", "E2E_KEEP": "1", "E2E_ATTACH": "0"},
			want: Options{Lab: cluster.Config{Nodes: 3}, Keep: true},
		},
		"no number": {env: map[string]string{"E2E_NODES": "two"}, bad: true},
		"no nodes":  {env: map[string]string{"E2E_NODES": "0"}, bad: true},
		"no switch": {env: map[string]string{"E2E_KEEP": "yes"}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Options{Lab: cluster.Config{Nodes: 1}}.FromEnvironment(func(k string) string { return c.env[k] })
			if c.bad != errors.Is(err, ErrEnvironment) || !c.bad && err != nil {
				t.Fatalf("error = %v", err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(cluster.Config{}, "Progress"), cmpopts.IgnoreUnexported(cluster.Config{}), cmpopts.IgnoreFields(Options{}, "Installed", "Say")); !c.bad && diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAttempt(t *testing.T) {
	t.Setenv(attemptEnv, "")
	if got := attempt(); got != 1 {
		t.Errorf("attempt() = %d", got)
	}
	t.Setenv(attemptEnv, "2")
	if got := attempt(); got != 2 {
		t.Errorf("attempt() = %d", got)
	}
}

func TestLastWords(t *testing.T) {
	quiet := strings.Repeat("a line\n", 40)
	if got := lastWords(quiet + "the end\n"); strings.Count(got, "\n") != 14 || !strings.HasSuffix(got, "the end") {
		t.Errorf("without a crash: %q", got)
	}
	got := lastWords(quiet + "[ 1.0] BUG: unable to handle page fault\n" + strings.Repeat("trace\n", 30) + "Rebooting in 10 seconds..\n")
	if !strings.HasPrefix(got, "[ 1.0] BUG:") || !strings.HasSuffix(got, "seconds..") {
		t.Errorf("with a crash: %q", got)
	}
}

func TestSpins(t *testing.T) {
	normal := strings.Repeat("vmrun! 0000000110854000\nvmexit(00000400, 0000000100000006, 00000000fee00000, ffffffffab69a2f8)!\nvmrun! 0000000110854000\nInjecting(0): INTR 0xec 0x2\n", 400)
	if rip := spins([]byte(normal)); rip != "" {
		t.Errorf("a driver that polls its device is taken for lost, at %s", rip)
	}
	lost := strings.Repeat("vmrun! 000000000a720000\nInjecting(0x800): EXEPTvmexit(00000400, 000000020000000e, 0000000122a62fe0, ffffffffc0c460b0)!\n", 300)
	if rip := spins([]byte(normal + lost)); rip != "ffffffffc0c460b0" {
		t.Errorf("the lost guest is at %q", rip)
	}
}

func TestLockedUp(t *testing.T) {
	busy := strings.Repeat("vmrun! 1\nvmexit(00000060, 0000000000000000, 0000000000000000, ffffffff8118f0a0)!\nvmrun! 1\nvmexit(0000007b, 000000000cfc0041, ffffffff874868d7, ffffffff874868d6)!\n", 15)
	stuck := strings.Repeat("vmrun! 2\nvmexit(00000060, 0000000000000000, 0000000000000000, ffffffff87521880)!\n", 25)
	short := strings.Repeat("vmrun! 2\nvmexit(00000060, 0000000000000000, 0000000000000000, ffffffff99999990)!\n", 30)
	var l lockedUp
	for i := 1; i < lockedUpLooks; i++ {
		if rip := l.look([]byte(busy + stuck)); rip != "" {
			t.Fatalf("after %d looks: %s", i, rip)
		}
	}
	if rip := l.look([]byte(short + busy + stuck)); rip != "ffffffff87521880" {
		t.Errorf("in the end: %q", rip)
	}
	l = lockedUp{}
	for i := range 3 * lockedUpLooks {
		log := busy
		if i%5 != 0 {
			log += stuck
		}
		if rip := l.look([]byte(log)); rip != "" {
			t.Fatalf("a guest that goes on now and then is taken for lost, at %s", rip)
		}
	}
}

func TestBegan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.log")
	text := strings.Repeat("vmrun! 1\n", 50) + "vmexit(7b)!\nvmexit(400, ffffffffc0c460b0)!\n" + strings.Repeat("EXEPTvmexit(400, ffffffffc0c460b0)!\n", 50)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := began(path, "ffffffffc0c460b0")
	if !strings.Contains(got, "vmexit(7b)!\nvmexit(400, ffffffffc0c460b0)!\nEXEPTvmexit") || strings.Count(got, "\n") > 30 {
		t.Errorf("began = %q", got)
	}
	if got := began(path, "ffffffff00000000"); !strings.Contains(got, "not in the log") {
		t.Errorf("an address that is not there: %q", got)
	}
}
