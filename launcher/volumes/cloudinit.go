package volumes

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kdomanski/iso9660"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

// SecretsDir + "/" + name is the mount of a Secret that cloud-init data comes
// from.
const SecretsDir = "/secrets"

// maxData bounds one kind of cloud-init data: a Secret's own limit.
const maxData = 1 << 20

// Identity is who the guest is to cloud-init.
type Identity struct {
	// InstanceID changes with every new guest, and with it cloud-init runs again.
	InstanceID string
	Hostname   string
	// Keys are SSH public keys, one line each, for the guest's default user.
	Keys []string
}

// cloudFiles are the files of a seed by their path in the image, and the volume
// label by which cloud-init finds it. Source: cloud-init's reference of the
// NoCloud and ConfigDrive data sources.
func cloudFiles(src *v1alpha1.CloudInitSource, configDrive bool, id Identity, field, root string) (label string, files map[string]string, err error) {
	user, err := data(field, root, []form{
		{"userData", src.UserData, ""}, {"userDataBase64", "", src.UserDataBase64},
	}, refName(src.UserDataSecretRef != nil, func() string { return src.UserDataSecretRef.Name }), "userdata")
	if err != nil {
		return "", nil, err
	}
	network, err := data(field, root, []form{
		{"networkData", src.NetworkData, ""}, {"networkDataBase64", "", src.NetworkDataBase64},
	}, refName(src.NetworkDataSecretRef != nil, func() string { return src.NetworkDataSecretRef.Name }), "networkdata")
	if err != nil {
		return "", nil, err
	}
	meta := map[string]any{"instance-id": id.InstanceID, "local-hostname": id.Hostname}
	paths := [3]string{"meta-data", "user-data", "network-config"}
	label = "cidata"
	if configDrive {
		meta = map[string]any{"uuid": id.InstanceID, "instance-id": id.InstanceID, "hostname": id.Hostname, "local-hostname": id.Hostname}
		paths = [3]string{"openstack/latest/meta_data.json", "openstack/latest/user_data", "openstack/latest/network_data.json"}
		label = "config-2"
	}
	if len(id.Keys) > 0 {
		// A list for NoCloud, OpenStack's map of name to key for the config drive.
		meta["public-keys"] = id.Keys
		if configDrive {
			delete(meta, "public-keys")
			keys := map[string]string{}
			for i, k := range id.Keys {
				keys[strconv.Itoa(i)] = k
			}
			meta["public_keys"] = keys
		}
	}
	m, err := json.Marshal(meta) // JSON is YAML, which NoCloud wants
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", field, err)
	}
	files = map[string]string{paths[0]: string(m) + "\n", paths[1]: user}
	if network != "" {
		files[paths[2]] = network
	}
	return label, files, nil
}

// form is one way to give a kind of data.
type form struct{ name, plain, base64 string }

func refName(set bool, name func() string) string {
	if !set {
		return ""
	}
	return name()
}

// data takes the one form that is set.
func data(field, root string, forms []form, secret, key string) (string, error) {
	for _, f := range forms {
		if f.plain != "" {
			return f.plain, nil
		}
		if f.base64 != "" {
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(f.base64))
			if err != nil {
				return "", vmspec.Errorf(field+"."+f.name, "is not base64: %v", err)
			}
			return string(b), nil
		}
	}
	if secret == "" {
		return "", nil
	}
	path := filepath.Join(root, SecretsDir, secret, key)
	file, err := os.Open(path)
	if err != nil {
		return "", vmspec.Errorf(field, "the Secret %s must be mounted at %s/%s with the key %s: %v", secret, SecretsDir, secret, key, err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxData+1))
	if err != nil {
		return "", fmt.Errorf("%s: read the Secret %s: %w", field, secret, err)
	}
	if len(b) > maxData {
		return "", vmspec.Errorf(field, "the Secret %s has more than %d bytes in %s", secret, maxData, key)
	}
	return string(b), nil
}

// sshKeys are the public keys of the Secrets of accessCredentials that a kind of
// cloud-init data carries: every value of a Secret may have several, one a line.
func sshKeys(spec *v1alpha1.VirtualMachineInstanceSpec, configDrive bool, root string) ([]string, error) {
	var keys []string
	for i, a := range spec.AccessCredentials {
		k := a.SSHPublicKey
		if k == nil || (k.PropagationMethod.ConfigDrive != nil) != configDrive || k.Source.Secret == nil {
			continue
		}
		field := fmt.Sprintf("spec.accessCredentials[%d].sshPublicKey.source.secret", i)
		dir := filepath.Join(root, SecretsDir, k.Source.Secret.SecretName)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, vmspec.Errorf(field, "the Secret %s must be mounted at %s/%[1]s: %v", k.Source.Secret.SecretName, SecretsDir, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				continue // kubelet's own links
			}
			text, err := data(field, root, nil, k.Source.Secret.SecretName, e.Name())
			if err != nil {
				return nil, err
			}
			for _, line := range strings.Split(text, "\n") {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
					keys = append(keys, line)
				}
			}
		}
	}
	return keys, nil
}

// writeISO makes an image with these files, readable by this user only.
func writeISO(path, label string, files map[string]string) (err error) {
	w, err := iso9660.NewWriter()
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	defer func() {
		if cerr := w.Cleanup(); cerr != nil && err == nil {
			err = fmt.Errorf("make %s: %w", path, cerr)
		}
	}()
	for name, text := range files {
		if err := w.AddFile(strings.NewReader(text), name); err != nil {
			return fmt.Errorf("make %s: %s: %w", path, name, err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := w.WriteTo(f, label); err != nil {
		return fmt.Errorf("make %s: %w", path, errors.Join(err, f.Close()))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}
