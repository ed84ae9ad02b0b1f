// Package peer finds out which pod and container the process at the other end of
// a unix socket belongs to.
//
// It is for package agentsocket. The agent must run in the host's pid namespace
// and see the host's cgroup paths.
//
// Traps: SO_PEERCRED's pid may have been given to another process meanwhile, so
// a pidfd is taken where the kernel offers one, else the process' start time is
// read before and after; a container that may write cgroups could make one with
// another pod's name inside its own, so the outermost pod in the path counts.
package peer

import (
	"errors"
	"fmt"
	"strings"
)

// Errors by class.
var (
	// ErrNotPod: the process is in no pod's cgroup.
	ErrNotPod = errors.New("not a process of a pod")
	// ErrGone: the process has ended meanwhile.
	ErrGone = errors.New("the calling process is gone")
	// ErrSocket: the kernel did not say who is at the other end.
	ErrSocket = errors.New("no peer credentials")
)

// ParseCgroup finds pod UID and container ID in the text of /proc/PID/cgroup, in
// the spellings of kubelet's cgroupfs and systemd drivers, of cgroup v1 and v2.
// The container ID is empty for a process directly in the pod's cgroup. Errors
// are of class [ErrNotPod].
func ParseCgroup(text string) (podUID, containerID string, err error) {
	for line := range strings.Lines(text) {
		// hierarchy:controllers:path
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			continue
		}
		_, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		uid, cid := podOf(path)
		if uid == "" {
			continue
		}
		if podUID != "" && podUID != uid {
			return "", "", fmt.Errorf("%w: its cgroups name pods %s and %s", ErrNotPod, podUID, uid)
		}
		podUID = uid
		if containerID == "" {
			containerID = cid
		}
	}
	if podUID == "" {
		return "", "", fmt.Errorf("%w: no kubepods cgroup", ErrNotPod)
	}
	return podUID, containerID, nil
}

// podOf reads one cgroup path.
func podOf(path string) (uid, cid string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	below := false // a kubepods cgroup has been passed
	for i, part := range parts {
		if !below {
			below = isKubepods(part)
			// The systemd driver repeats kubepods in each name, also the pod's.
			if !below || !strings.HasSuffix(part, ".slice") {
				continue
			}
		}
		uid = podPart(part)
		if uid == "" {
			continue
		}
		if i+1 < len(parts) {
			cid = containerPart(parts[i+1])
		}
		return uid, cid
	}
	return "", ""
}

// isKubepods knows "kubepods", "kubepods.slice" and those below another root:
// "kubelet-kubepods.slice".
func isKubepods(part string) bool {
	part = strings.TrimSuffix(part, ".slice")
	return part == "kubepods" || strings.HasSuffix(part, "-kubepods") ||
		strings.HasPrefix(part, "kubepods-") || strings.Contains(part, "-kubepods-")
}

// podPart reads "pod<uid>" or "kubepods-burstable-pod<uid with _>.slice".
func podPart(part string) string {
	if s, ok := strings.CutSuffix(part, ".slice"); ok {
		i := strings.LastIndex(s, "-pod")
		if i < 0 {
			return ""
		}
		return validUID(strings.ReplaceAll(s[i+len("-pod"):], "_", "-"))
	}
	s, ok := strings.CutPrefix(part, "pod")
	if !ok {
		return ""
	}
	return validUID(s)
}

// validUID takes UUIDs, and the bare 32 hex digits of static pods.
func validUID(s string) string {
	switch len(s) {
	case 36:
		for i, c := range []byte(s) {
			dash := i == 8 || i == 13 || i == 18 || i == 23
			if dash != (c == '-') || !dash && !isHex(c) {
				return ""
			}
		}
		return s
	case 32:
		for _, c := range []byte(s) {
			if !isHex(c) {
				return ""
			}
		}
		return s
	}
	return ""
}

// containerPart reads "<id>" or "cri-containerd-<id>.scope".
func containerPart(part string) string {
	if s, ok := strings.CutSuffix(part, ".scope"); ok {
		part = s[strings.LastIndex(s, "-")+1:]
	}
	if len(part) != 64 {
		return ""
	}
	for _, c := range []byte(part) {
		if !isHex(c) {
			return ""
		}
	}
	return part
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
