package podinfo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// maxFile bounds what is read of one downward API file; kubelet's own limit for
// all annotations of an object is 256 KiB.
const maxFile = 512 << 10

// ErrPodInfo is the class of errors about the downward API volume.
var ErrPodInfo = errors.New("pod information")

// Info is what the downward API volume says.
type Info struct {
	// VM is the spec as YAML, empty when the annotation is missing.
	VM string
	// Assignment is nil when the annotation is missing: the pod was not placed
	// by our scheduler.
	Assignment *v1alpha1.Assignment
	// UID, Name and Namespace of the pod; each may be empty outside Kubernetes.
	UID, Name, Namespace string
}

// Read reads the volume at the root of fsys. Missing files are the same as
// empty ones. An assignment that does not parse, or that is for another pod, is
// an error of class [v1alpha1.ErrAssignment]; anything else is of class
// [ErrPodInfo].
func Read(fsys fs.FS) (Info, error) {
	var (
		info       Info
		assignment string
	)
	for _, f := range []struct {
		file string
		into *string
		trim bool
	}{
		{v1alpha1.PodInfoVM, &info.VM, false},
		{v1alpha1.PodInfoAssignment, &assignment, true},
		{v1alpha1.PodInfoUID, &info.UID, true},
		{v1alpha1.PodInfoName, &info.Name, true},
		{v1alpha1.PodInfoNamespace, &info.Namespace, true},
	} {
		s, err := readFile(fsys, path.Base(f.file))
		if err != nil {
			return Info{}, fmt.Errorf("%w: %s: %w", ErrPodInfo, f.file, err)
		}
		if f.trim {
			s = strings.TrimSpace(s)
		}
		*f.into = s
	}
	if assignment == "" {
		return info, nil
	}
	a, err := v1alpha1.DecodeAssignment(assignment)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", v1alpha1.PodInfoAssignment, err)
	}
	if info.UID != "" && a.PodUID != info.UID {
		return Info{}, fmt.Errorf("%w: it was made for the pod with UID %s, this pod has UID %s; the annotation was copied", v1alpha1.ErrAssignment, a.PodUID, info.UID)
	}
	info.Assignment = a
	return info, nil
}

func readFile(fsys fs.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("more than %d bytes", maxFile)
	}
	return string(b), nil
}
