package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/overhead"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const (
	namespace  = "vms"
	vfResource = "kubevfio.io/igb-vf"
	vfEnv      = "PCI_RESOURCE_KUBEVFIO_IO_IGB_VF"
	guestBytes = 256 << 20
	// Lines on the console between which the time is taken.
	startLine = "KUBEVFIO-BENCH start"
	readyLine = "KUBEVFIO-GUEST ready"
	// goFile lets the plain pod go, once its lock limit is raised.
	goFile = v1alpha1.LauncherRunDir + "/go"
	// runLimit is for one start under emulation on a busy machine.
	runLimit = 10 * time.Minute
)

const spec = `domain:
  cpu: {cores: 1}
  memory: {guest: 256Mi}
  firmware:
    kernelBoot:
      kernelArgs: console=ttyS0 quiet tsc=reliable no_timer_check kubevfio.passt=off
      container: {kernelPath: /guest/boot/vmlinux, initrdPath: /guest/boot/initrd}
  devices:
    autoattachPodInterface: false
    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}, macAddress: "02:00:00:0a:0b:01"}
terminationGracePeriodSeconds: 0
`

type bencher struct {
	lab  *cluster.Cluster
	env  *scenario.Env
	node string
	say  func(string, ...any)
	// qemu are the arguments that libvirt gave QEMU, made plain, with the
	// function's address as @VF@; lock is QEMU's lock limit in bytes.
	qemu []string
	lock string
	n    int
}

// start makes a pod of a kind and waits for the guest's userspace.
func (b *bencher) start(ctx context.Context, kind string) (*corev1.Pod, float64, error) {
	b.n++
	v := scenario.VMPod{
		Namespace: namespace, Name: fmt.Sprintf("bench-%d-%s", b.n, kind), Node: b.node, Spec: spec,
		Limits: map[string]string{vfResource: "1"}, Memory: "512Mi",
	}
	launcher := func(args ...string) []string {
		return append([]string{"bash", "-c", "echo " + startLine + `; exec /usr/bin/kubevfio-launcher run "$@"`, "launcher"}, args...)
	}
	switch kind {
	case "warm":
		v.Command = launcher()
	case "cold":
		v.Command = launcher("--capabilities=")
	case "daemon":
		v.Command = launcher("--libvirt=daemon")
	case "plain":
		v.Command = append([]string{"bash", "-c", "while [ ! -e " + goFile + " ]; do sleep 0.05; done; echo " + startLine +
			`; args=(); for a in "$@"; do args+=("${a//@VF@/$` + vfEnv + `}"); done; exec qemu-system-x86_64 "${args[@]}" </dev/null`, "plain"}, b.qemu...)
	}
	if _, err := b.env.Core.CoreV1().Pods(namespace).Create(ctx, v.Build(), metav1.CreateOptions{}); err != nil {
		return nil, 0, err
	}
	p, err := b.env.WaitPhase(ctx, runLimit, namespace, v.Name, corev1.PodRunning)
	if err != nil {
		return nil, 0, err
	}
	if kind == "plain" {
		if err := b.letGo(ctx, p); err != nil {
			return nil, 0, err
		}
	}
	s, err := b.seconds(ctx, v.Name)
	return p, s, err
}

// letGo raises the plain pod's lock limit, as the agent does for a launcher, and
// lets it start QEMU.
func (b *bencher) letGo(ctx context.Context, p *corev1.Pod) error {
	return scenario.Poll(ctx, time.Minute, "the plain pod's shell", func(ctx context.Context) (bool, string, error) {
		ps, err := scenario.Processes(ctx, b.lab, p)
		if err != nil {
			return false, "", err
		}
		for _, x := range ps {
			if !strings.HasPrefix(x.Command, "bash -c while") {
				continue
			}
			pid := strconv.Itoa(x.PID)
			_, err := scenario.NodeOutput(ctx, b.lab, b.node, "sh", "-c",
				"prlimit --pid "+pid+" --memlock="+b.lock+":"+b.lock+" && touch /proc/"+pid+"/root"+goFile)
			return err == nil, "", err
		}
		return false, "not there", nil
	})
}

// seconds reads the log until the guest's userspace reports, and takes the time
// from the line that the container's process began with.
func (b *bencher) seconds(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	rc, err := b.env.Core.CoreV1().Pods(namespace).GetLogs(name, &corev1.PodLogOptions{
		Container: scenario.Container, Follow: true, Timestamps: true,
	}).Stream(ctx)
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	return between(rc)
}

// errNoGuest: the log ended before the guest's userspace reported.
var errNoGuest = errors.New("the guest's userspace did not report")

// between gives the seconds between the two lines of a log with time stamps.
func between(log io.Reader) (float64, error) {
	var begin time.Time
	var last string
	s := bufio.NewScanner(log)
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for s.Scan() {
		stamp, text, _ := strings.Cut(s.Text(), " ")
		last = text
		isStart, isReady := strings.Contains(text, startLine), strings.Contains(text, readyLine)
		if !isStart && !isReady {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return 0, fmt.Errorf("time stamp of %q: %w", text, err)
		}
		if isStart {
			begin = at
		} else if !begin.IsZero() {
			return at.Sub(begin).Seconds(), nil
		}
	}
	return 0, fmt.Errorf("%w; last line %q", errors.Join(errNoGuest, s.Err()), last)
}

func (b *bencher) end(ctx context.Context, p *corev1.Pod) error {
	now := int64(1)
	if err := b.env.Core.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return err
	}
	return b.env.WaitGone(ctx, 2*time.Minute, namespace, p.Name)
}

// run is one start of a kind.
func (b *bencher) run(ctx context.Context, kind string, pair int) (*runResult, error) {
	p, seconds, err := b.start(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("pair %d, %s: %w", pair+1, kind, err)
	}
	r := &runResult{Kind: kind, Pair: pair, Seconds: seconds}
	if kind != "plain" {
		st, err := b.env.LauncherState(ctx, namespace, p.Name)
		if err != nil {
			return nil, err
		}
		r.Phases = map[string]float64{}
		rest := seconds
		for _, t := range st.Timings {
			r.Phases[t.Step] = t.Seconds
			rest -= t.Seconds
		}
		r.Phases["guest"] = rest
	}
	return r, b.end(ctx, p)
}

// memory takes the memory figures of both modes of libvirt, and QEMU's arguments.
func (b *bencher) memory(ctx context.Context, res *results) error {
	b.qemu = nil
	for mode, kind := range map[string]string{"embedded": "warm", "daemon": "daemon"} {
		if mode == "daemon" && res.PSS[mode] > 0 {
			continue // measured in an earlier lab
		}
		res.PSS[mode], res.RSS[mode] = 0, 0
		p, _, err := b.start(ctx, kind)
		if err != nil {
			return fmt.Errorf("memory of %s: %w", mode, err)
		}
		// Both processes give memory back 5 s after the start is over.
		time.Sleep(8 * time.Second)
		ps, err := scenario.Processes(ctx, b.lab, p)
		if err != nil {
			return err
		}
		for _, x := range ps {
			if strings.Contains(x.Command, "guest="+p.Name) {
				if mode == "embedded" {
					err = b.takeArguments(ctx, p, x.PID)
				}
				continue
			}
			res.PSS[mode] += float64(x.PSS) / (1 << 20)
			res.RSS[mode] += float64(x.RSS) / (1 << 20)
		}
		if err == nil && mode == "embedded" {
			err = b.overhead(ctx, p, res)
		}
		if err != nil {
			return err
		}
		b.say("memory beside QEMU, %s: PSS %.1f MiB, RSS %.1f MiB", mode, res.PSS[mode], res.RSS[mode])
		if err := b.end(ctx, p); err != nil {
			return err
		}
	}
	if len(b.qemu) == 0 {
		return errors.New("no QEMU process in the launcher's pod")
	}
	return nil
}

// overhead compares the cgroup's peak with the formula.
func (b *bencher) overhead(ctx context.Context, p *corev1.Pod, res *results) error {
	var vm v1alpha1.VirtualMachineInstanceSpec
	if err := yaml.UnmarshalStrict([]byte(spec), &vm); err != nil {
		return err
	}
	in, err := overhead.FromSpec(&vm)
	if err != nil {
		return err
	}
	peak, err := scenario.CgroupBytes(ctx, b.lab, p, "memory.peak")
	if err != nil {
		return err
	}
	formula, measured := float64(overhead.Total(overhead.Items(in))), float64(peak)-guestBytes
	res.Overhead["formula"], res.Overhead["measured"] = formula/(1<<20), measured/(1<<20)
	res.OverheadError = 100 * (formula - measured) / measured
	return nil
}

// takeArguments reads QEMU's command line and lock limit.
func (b *bencher) takeArguments(ctx context.Context, p *corev1.Pod, pid int) error {
	proc := "/proc/" + strconv.Itoa(pid)
	out, err := scenario.NodeOutput(ctx, b.lab, b.node, "sh", "-c", "tr '\\0' '\\n' <"+proc+"/cmdline; sed -n 's/^Max locked memory  *\\([0-9]*\\).*/lock=\\1/p' "+proc+"/limits")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	lock, ok := strings.CutPrefix(lines[len(lines)-1], "lock=")
	if !ok || lock == "" {
		return fmt.Errorf("no lock limit of QEMU in %q", lines[len(lines)-1])
	}
	b.lock = lock
	units, _, err := scenario.Assigned(p)
	if err != nil {
		return err
	}
	if len(units) != 1 {
		return fmt.Errorf("%s was assigned %v, want one function", p.Name, units)
	}
	b.qemu, err = plainArguments(lines[1:len(lines)-1], units[0])
	return err
}

// imageMiB is the size of the launcher's image as the node's runtime tells it.
func (b *bencher) imageMiB(ctx context.Context) (float64, error) {
	n, err := b.env.Core.CoreV1().Nodes().Get(ctx, b.node, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	for _, image := range n.Status.Images {
		for _, name := range image.Names {
			if strings.Contains(name, "kubevfio/launcher") {
				return float64(image.SizeBytes) / (1 << 20), nil
			}
		}
	}
	return 0, fmt.Errorf("node %s does not tell the launcher image's size", b.node)
}
