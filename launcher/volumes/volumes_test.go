package volumes

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kdomanski/iso9660"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/domain"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	root := t.TempDir()
	l := Files{Root: root}
	write(t, root+"/a/disk/x.img", "QFI\xfb\x00\x00\x00\x03")
	write(t, root+"/b/disk/x.img", "MZ")
	write(t, root+"/b/disk/y.img", "")
	if f, err := l.OnlyFile("/a/disk"); err != nil || f != "/a/disk/x.img" {
		t.Errorf("%q, %v", f, err)
	}
	if _, err := l.OnlyFile("/b/disk"); err == nil {
		t.Error("two files are one")
	}
	for path, want := range map[string]string{"/a/disk/x.img": "qcow2", "/b/disk/x.img": "raw", "/b/disk/y.img": "raw"} {
		if got, err := l.Format(path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if l.IsBlock("/b/disk/x.img") {
		t.Error("a file is a block device")
	}
}

func TestCloudInit(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/secrets/s/userdata", "#cloud-config from a secret\n")
	id := Identity{InstanceID: "i-1", Hostname: "vm-a"}
	for name, tc := range map[string]struct {
		src         v1alpha1.CloudInitSource
		configDrive bool
		label       string
		want        map[string]string
	}{
		"NoCloud": {
			src: v1alpha1.CloudInitSource{UserData: "#cloud-config\n", NetworkDataBase64: "dmVyc2lvbjogMgo="}, label: "cidata",
			want: map[string]string{
				"meta-data": `{"instance-id":"i-1","local-hostname":"vm-a"}` + "\n", "user-data": "#cloud-config\n", "network-config": "version: 2\n",
			},
		},
		"config drive from a secret": {
			src: v1alpha1.CloudInitSource{UserDataSecretRef: &corev1.LocalObjectReference{Name: "s"}}, configDrive: true, label: "config-2",
			want: map[string]string{
				"openstack/latest/meta_data.json": `{"hostname":"vm-a","instance-id":"i-1","local-hostname":"vm-a","uuid":"i-1"}` + "\n",
				"openstack/latest/user_data":      "#cloud-config from a secret\n",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &v1alpha1.VirtualMachineInstanceSpec{}
			v := v1alpha1.Volume{Name: "seed"}
			if tc.configDrive {
				v.CloudInitConfigDrive = &tc.src
			} else {
				v.CloudInitNoCloud = &tc.src
			}
			spec.Volumes = append(spec.Volumes, v)
			iso := filepath.Join(t.TempDir(), "disks", "seed.iso")
			if err := Prepare(context.Background(), spec, map[string]domain.Volume{"seed": {Path: iso}}, id, root, Tools{}); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(iso)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			img, err := iso9660.OpenImage(f)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := img.RootDir()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			collect(t, dir, "", got)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			if label, err := img.Label(); err != nil || strings.TrimSpace(label) != tc.label {
				t.Errorf("label %q, %v, want %q", label, err, tc.label)
			}
		})
	}
}

func collect(t *testing.T, dir *iso9660.File, path string, into map[string]string) {
	t.Helper()
	children, err := dir.GetChildren()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range children {
		if c.IsDir() {
			collect(t, c, path+c.Name()+"/", into)
			continue
		}
		b, err := io.ReadAll(c.Reader())
		if err != nil {
			t.Fatal(err)
		}
		into[path+c.Name()] = string(b)
	}
}

// Keys of Secrets reach the metadata of the kind of seed that they are for.
func TestSSHKeys(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/secrets/team/alice", "ssh-ed25519 AAAA alice\n# a comment\nssh-ed25519 BBBB alice@home\n")
	write(t, root+"/secrets/team/..data", "kubelet's")
	write(t, root+"/secrets/ops/key", "ssh-ed25519 CCCC ops")
	credential := func(secret string, m v1alpha1.SSHPublicKeyPropagationMethod) v1alpha1.AccessCredential {
		return v1alpha1.AccessCredential{SSHPublicKey: &v1alpha1.SSHPublicKeyAccessCredential{
			Source: v1alpha1.SSHPublicKeySource{Secret: &v1alpha1.AccessCredentialSecret{SecretName: secret}}, PropagationMethod: m,
		}}
	}
	spec := &v1alpha1.VirtualMachineInstanceSpec{AccessCredentials: []v1alpha1.AccessCredential{
		credential("team", v1alpha1.SSHPublicKeyPropagationMethod{NoCloud: &v1alpha1.SSHPublicKeyByCloudInit{}}),
		credential("ops", v1alpha1.SSHPublicKeyPropagationMethod{ConfigDrive: &v1alpha1.SSHPublicKeyByCloudInit{}}),
	}}
	for _, tc := range []struct {
		configDrive bool
		file, want  string
	}{
		{false, "meta-data", `{"instance-id":"i","local-hostname":"h","public-keys":["ssh-ed25519 AAAA alice","ssh-ed25519 BBBB alice@home"]}`},
		{true, "openstack/latest/meta_data.json", `{"hostname":"h","instance-id":"i","local-hostname":"h","public_keys":{"0":"ssh-ed25519 CCCC ops"},"uuid":"i"}`},
	} {
		keys, err := sshKeys(spec, tc.configDrive, root)
		if err != nil {
			t.Fatal(err)
		}
		_, files, err := cloudFiles(&v1alpha1.CloudInitSource{UserData: "x"}, tc.configDrive, Identity{InstanceID: "i", Hostname: "h", Keys: keys}, "f", root)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want+"\n", files[tc.file]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.file, diff)
		}
	}
	if _, err := sshKeys(spec, false, t.TempDir()); err == nil || !strings.Contains(err.Error(), "/secrets/team") || !strings.Contains(err.Error(), "spec.accessCredentials[0]") {
		t.Errorf("error %v does not name the mount and the field", err)
	}
}

func TestSecretNotMounted(t *testing.T) {
	_, _, err := cloudFiles(&v1alpha1.CloudInitSource{UserDataSecretRef: &corev1.LocalObjectReference{Name: "s"}}, false, Identity{}, "spec.volumes[0].cloudInitNoCloud", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "/secrets/s") || !strings.Contains(err.Error(), "spec.volumes[0].cloudInitNoCloud") {
		t.Errorf("error %v does not name the mount and the field", err)
	}
}

func TestEmptyDiskKeepsData(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disks", "e.img")
	spec := &v1alpha1.VirtualMachineInstanceSpec{Volumes: []v1alpha1.Volume{{
		Name: "e", VolumeSource: v1alpha1.VolumeSource{EmptyDisk: &v1alpha1.EmptyDiskSource{Capacity: resource.MustParse("1Mi")}},
	}}}
	for range 2 {
		if err := Prepare(context.Background(), spec, map[string]domain.Volume{"e": {Path: path}}, Identity{}, "/", Tools{}); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Size() != 1<<20 || st.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", st, err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if b, err := os.ReadFile(path); err != nil || b[0] != 'x' {
		t.Error("the second call emptied the disk")
	}
}
