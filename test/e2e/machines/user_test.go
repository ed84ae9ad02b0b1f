package machines

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// vfio calls `kubectl vfio`, with kubectl and the plugin as they are shipped.
func vfio(ctx context.Context, t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := vfioCommand(ctx, t, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl vfio %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func vfioCommand(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	// kubectl finds plugins by their names on the path.
	bin := t.TempDir()
	if err := os.Symlink(lab.Binary("kubectl-vfio"), filepath.Join(bin, "kubectl-vfio")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, lab.Kubectl(), append([]string{"vfio"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+lab.Kubeconfig(), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Dir = t.TempDir()
	return cmd
}

// must is vfio of commands that have to succeed and to say all of says.
func must(t *testing.T, says []string, in string, args ...string) string {
	t.Helper()
	out, err := vfio(t.Context(), t, in, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range says {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl vfio %s does not say %q:\n%s", strings.Join(args, " "), want, out)
		}
	}
	return out
}

// column waits until `kubectl get kvm` shows a word for a machine.
func column(t *testing.T, limit time.Duration, name, want string) {
	t.Helper()
	err := scenario.Poll(t.Context(), limit, "kubectl get kvm "+name+" shows "+want, func(ctx context.Context) (bool, string, error) {
		out, err := env.Run(ctx, "-n", namespace, "get", "kvm", name, "--no-headers")
		return err == nil && strings.Contains(out, want), out, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAsAUser does with plain kubectl and its plugin what people do with a machine.
func TestAsAUser(t *testing.T) {
	const name = "web"
	vm := exampleVM(t, namespace, name, "02:00:00:0a:09:45")
	spec := &vm.Spec.Template.Spec
	spec.Domain.Firmware.KernelBoot.KernelArgs += " console=tty0 console=ttyS0"
	spec.Domain.Devices.AutoattachGraphicsDevice = new(true)
	spec.Domain.Devices.GuestAgent = &v1alpha1.GuestAgent{}
	createVM(t, vm)
	up(t, namespace, name)
	column(t, time.Minute, name, "Running")
	n := []string{"-n", namespace}
	of := func(args ...string) []string { return append(args, n...) }

	t.Run("looks", func(t *testing.T) {
		must(t, []string{"the guest runs on node", "given:      kubevfio.io/igb-vf"}, "", of("explain", "vm", name)...)
		must(t, []string{"kubevfio.io/igb-vf", name}, "", "devices")
		must(t, []string{"pci0000"}, "", of("topology", "vmi", name)...)
		must(t, []string{`"phase": "Running"`}, "", of("state", name)...)
		must(t, []string{"KUBEVFIO-GUEST ready"}, "", of("log", name)...)
	})
	t.Run("console", func(t *testing.T) { checkConsole(t, name) })
	t.Run("agent", func(t *testing.T) {
		must(t, []string{`"hostname": "lab-guest"`, "02:00:00:0a:09:45"}, "", of("guestinfo", name)...)
	})
	t.Run("screen", func(t *testing.T) { checkScreen(t, name) })
	t.Run("vnc", func(t *testing.T) { checkVNC(t, name) })
	t.Run("roles", func(t *testing.T) {
		if _, err := env.Run(t.Context(), "-n", namespace, "create", "rolebinding", "viewer", "--clusterrole=view", "--user=viewer"); err != nil {
			t.Fatal(err)
		}
		as := of("--as=viewer", "--as-group=system:authenticated")
		must(t, []string{"KUBEVFIO-GUEST ready"}, "", append([]string{"log", name}, as...)...)
		for what, role := range map[string]string{"console": "kubevfio-console", "stop": "edit", "pause": "edit"} {
			_, err := vfio(t.Context(), t, "", append([]string{what, name}, as...)...)
			if err == nil || !strings.Contains(err.Error(), role) {
				t.Errorf("a viewer's %s: %v; want a refusal that names the role %s", what, err, role)
			}
		}
	})
	t.Run("power", func(t *testing.T) {
		must(t, []string{"paused"}, "", of("pause", name)...)
		column(t, 10*time.Second, name, "Paused")
		must(t, []string{"running"}, "", of("unpause", name)...)
		column(t, time.Minute, name, "Running")
		if _, err := vfio(t.Context(), t, "", of("start", name)...); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("start of a running machine: %v", err)
		}
		must(t, []string{"restarting", "Running"}, "", of("restart", name, "--wait", "--timeout=6m")...)
		must(t, []string{"Halted", "Stopped"}, "", of("stop", name, "--wait", "--timeout=3m")...)
		must(t, []string{"Always"}, "", of("start", name)...)
		up(t, namespace, name)
		must(t, []string{"switching off"}, "", of("stop", name, "--force", "--wait", "--timeout=2m")...)
	})
}

// checkConsole types into the console, reads the answer, and ends its input.
func checkConsole(t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := vfioCommand(ctx, t, "console", name, "-n", namespace)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "\rprintf said-%d 42\r"); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), "said-42") {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("the console ended (%v) with %q; %s", err, seen.String(), errs.String())
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("at the end of its input: %v: %s", err, errs.String())
	}
}

// checkScreen saves the screen as a picture and looks for text in it: rows of the
// console's two colours.
func checkScreen(t *testing.T, name string) {
	file := filepath.Join(t.TempDir(), "screen.png")
	must(t, []string{file}, "", "screenshot", name, "-f", file, "-n", namespace)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("a screenshot of %d bytes: %v", len(b), err)
	}
	lit, rows := 0, 0
	for y := range img.Bounds().Dy() {
		before := lit
		for x := range img.Bounds().Dx() {
			if r, g, b, _ := img.At(x, y).RGBA(); r+g+b > 3*0x5000 {
				lit++
			}
		}
		if lit > before {
			rows++
		}
	}
	t.Logf("a screen of %v with %d lit pixels in %d rows", img.Bounds().Size(), lit, rows)
	if img.Bounds().Dx() < 320 || lit < 200 || rows < 20 {
		t.Error("the screen shows no text")
	}
}

// checkVNC speaks with the guest's VNC server through `kubectl vfio vnc`, as a viewer
// begins (RFC 6143, 7.1).
func checkVNC(t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := vfioCommand(ctx, t, "vnc", name, "--proxy-only", "-n", namespace)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it was interrupted
	}()
	var address string
	if _, err := fmt.Fscan(out, &address); err != nil {
		t.Fatalf("no address was printed: %v", err)
	}
	for range 2 {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		hello := make([]byte, 12)
		if _, err := conn.Read(hello); err != nil || !strings.HasPrefix(string(hello), "RFB 003.") {
			t.Fatalf("the server says %q, %v", hello, err)
		}
		if _, err := conn.Write([]byte("RFB 003.008\n")); err != nil {
			t.Fatal(err)
		}
		types := make([]byte, 2)
		if _, err := conn.Read(types); err != nil || types[0] == 0 {
			t.Fatalf("security types %v, %v", types, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
