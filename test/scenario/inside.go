package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// Process is a process of a pod as its node sees it.
type Process struct {
	PID int
	// Command is the command line with spaces between the arguments.
	Command string
	// Cgroup is its cgroup below /sys/fs/cgroup.
	Cgroup string
	// PSS and RSS are in bytes.
	PSS, RSS uint64
}

// Processes lists a pod's processes without the sandbox's, by PID.
func Processes(ctx context.Context, nodes NodeExecer, p *corev1.Pod) ([]Process, error) {
	uid := string(p.UID)
	script := fmt.Sprintf(`for d in /proc/[0-9]*; do
grep -qE '%s|%s' $d/cgroup 2>/dev/null || continue
echo "${d#/proc/}|$(sed -n 's/^0:://p' $d/cgroup)|$(sed -n 's/^Pss: *\([0-9]*\).*/\1/p' $d/smaps_rollup)|$(sed -n 's/^Rss: *\([0-9]*\).*/\1/p' $d/smaps_rollup)|$(tr '\0' ' ' <$d/cmdline)"
done; true`, uid, strings.ReplaceAll(uid, "-", "_"))
	out, err := NodeOutput(ctx, nodes, p.Spec.NodeName, "sh", "-c", script)
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", p.Name, err)
	}
	var all []Process
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 5)
		if len(f) != 5 {
			continue
		}
		pid, err := strconv.Atoi(f[0])
		if err != nil || strings.HasPrefix(f[4], "/pause") || f[4] == "" {
			continue
		}
		kib := func(s string) uint64 {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return 0 // it has just ended
			}
			return n << 10
		}
		all = append(all, Process{PID: pid, Cgroup: f[1], PSS: kib(f[2]), RSS: kib(f[3]), Command: f[4]})
	}
	return all, nil
}

// CgroupBytes reads a file with one number of the container's cgroup.
func CgroupBytes(ctx context.Context, nodes NodeExecer, p *corev1.Pod, file string) (uint64, error) {
	ps, err := Processes(ctx, nodes, p)
	if err != nil {
		return 0, err
	}
	if len(ps) == 0 {
		return 0, fmt.Errorf("%s: no process of the pod", p.Name)
	}
	out, err := NodeOutput(ctx, nodes, p.Spec.NodeName, "cat", "/sys/fs/cgroup"+ps[0].Cgroup+"/"+file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(out), 10, 64)
}

// LauncherState asks the launcher in the pod for its state.
func (e *Env) LauncherState(ctx context.Context, namespace, name string) (*launcherrpcv1.State, error) {
	out, err := e.Run(ctx, "-n", namespace, "exec", name, "-c", Container, "--", "/usr/bin/kubevfio-launcher", "proxy", "state")
	if err != nil {
		return nil, err
	}
	var st launcherrpcv1.State
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return nil, fmt.Errorf("state of %s: %w", name, err)
	}
	return &st, nil
}

// HostDevice is what sysfs on a node says of a function.
type HostDevice struct {
	Address string
	NUMA    int
	// Root is the root complex, such as "pci0000:40".
	Root string
}

var rootForm = regexp.MustCompile(`/(pci[0-9a-f]{4}:[0-9a-f]{2})/`)

// HostDevices looks the functions up on the node.
func HostDevices(ctx context.Context, nodes NodeExecer, node string, addresses []string) ([]HostDevice, error) {
	var out []HostDevice
	for _, a := range addresses {
		text, err := NodeOutput(ctx, nodes, node, "sh", "-c", "cat /sys/bus/pci/devices/"+a+"/numa_node; readlink -f /sys/bus/pci/devices/"+a)
		if err != nil {
			return nil, err
		}
		numa, path, _ := strings.Cut(strings.TrimSpace(text), "\n")
		n, err := strconv.Atoi(numa)
		m := rootForm.FindStringSubmatch(path)
		if err != nil || m == nil {
			return nil, fmt.Errorf("%s on %s: NUMA node %q at %q", a, node, numa, path)
		}
		out = append(out, HostDevice{Address: a, NUMA: n, Root: m[1]})
	}
	return out, nil
}
