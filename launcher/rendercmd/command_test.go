package rendercmd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
)

func render(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := NewCommand()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

const labVM = `
apiVersion: kubevfio.io/v1alpha1
kind: VirtualMachineInstance
metadata: {name: one, namespace: demo}
spec:
  domain:
    cpu: {cores: 1}
    memory: {guest: 256Mi}
    firmware: {kernelBoot: {container: {kernelPath: /guest/boot/vmlinuz}}}
    devices:
      gpus:
      - {name: gpu, deviceName: kubevfio.io/gpu}
      interfaces:
      - {name: fast, sriov: {deviceName: kubevfio.io/igb-vf}}
`

func TestRenderLab(t *testing.T) {
	dir := t.TempDir()
	if err := hosttest.Write(dir, hosttest.Lab()); err != nil {
		t.Fatal(err)
	}
	spec := write(t, "vm.yaml", labVM)
	h, err := host.Read(t.Context(), host.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(map[string]any{"host": h})
	if err != nil {
		t.Fatal(err)
	}
	asJSON := write(t, "host.json", string(js))
	var outs []string
	for _, inv := range []string{dir, asJSON} {
		out, err := render(t, "--spec", spec, "--inventory", inv, "--devices", "gpu=0000:62:00.0,kubevfio.io/igb-vf=0000:41:00.4", "-o", "report")
		if err != nil {
			t.Fatal(err)
		}
		outs = append(outs, out)
	}
	if outs[0] != outs[1] {
		t.Errorf("the tree and its JSON differ:\n%s\n%s", outs[0], outs[1])
	}
	t.Log(outs[0])
	if !strings.Contains(outs[0], "gpu (companion)") {
		t.Errorf("no companion in\n%s", outs[0])
	}
}
