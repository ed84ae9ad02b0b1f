package domain

import (
	"path"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Where a launcher container has its volumes. The controller mounts them so; a
// plain pod's owner does.
const (
	// VolumesDir + "/" + name is the mount of a volume that is a folder: a
	// claim, an OCI image, a ConfigMap.
	VolumesDir = "/volumes"
	// BlockDir + "/" + name is the device of a block claim.
	BlockDir = "/dev/volumes"
	// ContainerDiskDir is the folder of disks within an OCI image.
	ContainerDiskDir = "disk"
	// ClaimFile is the image file within a claim.
	ClaimFile = "disk.img"
)

// Looker answers what only the container's file system knows.
type Looker interface {
	// IsBlock reports whether the path is a block device.
	IsBlock(path string) bool
	// OnlyFile is the single regular file of a folder.
	OnlyFile(dir string) (string, error)
	// Format is "raw" or "qcow2" by the file's first bytes.
	Format(path string) (string, error)
}

// PlaceVolumes finds the places of the spec's volumes below the contract's
// paths; what the launcher makes itself (overlays, empty disks, cloud-init
// images, sockets) is below runDir. look may be nil: then every claim is a file
// system, every image raw, and a containerDisk without a path is disk.img.
func PlaceVolumes(spec *v1alpha1.VirtualMachineInstanceSpec, runDir string, look Looker) (map[string]Volume, error) {
	out := map[string]Volume{}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		field := "spec.volumes[" + itoa(i) + "]"
		p, err := placeVolume(v, field, runDir, look, isShare(spec, v.Name))
		if err != nil {
			return nil, err
		}
		out[v.Name] = p
	}
	return out, nil
}

func placeVolume(v *v1alpha1.Volume, field, runDir string, look Looker, share bool) (Volume, error) {
	mount := path.Join(VolumesDir, v.Name)
	p := Volume{Path: mount, Socket: path.Join(runDir, "fs", v.Name+".sock")}
	switch {
	case v.ContainerDisk != nil:
		p.Overlay = path.Join(runDir, "disks", v.Name+".qcow2")
		switch {
		case v.ContainerDisk.Path != "":
			p.Path = path.Join(mount, path.Clean("/"+v.ContainerDisk.Path))
		case look == nil:
			p.Path = path.Join(mount, ContainerDiskDir, ClaimFile)
		default:
			f, err := look.OnlyFile(path.Join(mount, ContainerDiskDir))
			if err != nil {
				return p, hostErrorf(field+".containerDisk", "%v; set path", err)
			}
			p.Path = f
		}
	case v.PersistentVolumeClaim != nil, v.DataVolume != nil:
		if block := path.Join(BlockDir, v.Name); look != nil && look.IsBlock(block) {
			return Volume{Path: block, Block: true}, nil
		}
		if share {
			return p, nil
		}
		p.Path = path.Join(mount, ClaimFile)
	case v.EmptyDisk != nil:
		return Volume{Path: path.Join(runDir, "disks", v.Name+".img"), Format: "raw"}, nil
	case v.CloudInitNoCloud != nil, v.CloudInitConfigDrive != nil:
		return Volume{Path: path.Join(runDir, "disks", v.Name+".iso"), Format: "raw"}, nil
	default:
		return p, nil // a folder, for virtiofs
	}
	if look == nil {
		return p, nil
	}
	format, err := look.Format(p.Path)
	if err != nil {
		return p, hostErrorf(field, "%v", err)
	}
	p.Format = format
	return p, nil
}

// isShare reports whether the volume is a filesystem of the guest: then it is
// the folder, not an image in it.
func isShare(spec *v1alpha1.VirtualMachineInstanceSpec, name string) bool {
	for i := range spec.Domain.Devices.Filesystems {
		if spec.Domain.Devices.Filesystems[i].Name == name {
			return true
		}
	}
	return false
}
