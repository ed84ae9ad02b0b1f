package podinfo

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
)

// ErrEnv is the class of errors about the device environment.
var ErrEnv = errors.New("device environment")

// Env maps the <NAME> part of the device variables to the addresses that they
// hold, in their order.
type Env map[string][]topology.Address

// ParseEnv reads the device variables out of an environment in the form of
// os.Environ. The two contracts must agree where both name a resource; a
// variable without an address, with something that is no address, or with an
// address that occurs twice in all, is an error of class [ErrEnv].
func ParseEnv(environ []string) (Env, error) {
	env := Env{}
	from := map[string]string{}
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		name, ok := deviceVariable(key, value)
		if !ok {
			continue
		}
		addresses, err := parseList(value)
		if err != nil {
			return nil, fmt.Errorf("%w: %s=%q: %w", ErrEnv, key, value, err)
		}
		if had, ok := env[name]; ok && !slices.Equal(had, addresses) {
			return nil, fmt.Errorf("%w: %s says %v and %s says %v; one device plugin must set both", ErrEnv, from[name], had, key, addresses)
		}
		env[name], from[name] = addresses, key
	}
	seen := map[topology.Address]string{}
	for _, name := range env.Names() {
		for _, a := range env[name] {
			if other, ok := seen[a]; ok {
				return nil, fmt.Errorf("%w: %s is named twice, in %s and %s", ErrEnv, a, other, from[name])
			}
			seen[a] = from[name]
		}
	}
	return env, nil
}

// deviceVariable takes the <NAME> out of a variable's key. What ends in _INFO
// and holds a JSON object is the SR-IOV plugin's table, not a list.
func deviceVariable(key, value string) (string, bool) {
	if name, ok := strings.CutPrefix(key, v1alpha1.EnvKubeVirtPrefix); ok && name != "" {
		return name, true
	}
	name, ok := strings.CutPrefix(key, v1alpha1.EnvSRIOVPrefix)
	if !ok || name == "" {
		return "", false
	}
	if strings.HasSuffix(name, v1alpha1.EnvSRIOVInfoSuffix) && strings.HasPrefix(strings.TrimSpace(value), "{") {
		return "", false
	}
	return name, true
}

func parseList(value string) ([]topology.Address, error) {
	var list []topology.Address
	for s := range strings.SplitSeq(value, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			continue // the SR-IOV and KubeVirt plugins are known to end lists with a comma
		}
		a, err := topology.ParseAddress(s)
		if err != nil {
			return nil, err
		}
		if slices.Contains(list, a) {
			return nil, fmt.Errorf("%s is named twice", a)
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		return nil, errors.New("no address")
	}
	return list, nil
}

// Names are the keys, sorted.
func (e Env) Names() []string {
	names := make([]string, 0, len(e))
	for n := range e {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ByResource turns the environment's names back into resource names, of which
// many can give the same name ("a.b/c" and "a-b/c"): known are those that the
// spec and the assignment use. A name that no known resource gives is kept
// under itself, so that a device that nobody asked for is not lost from sight.
func (e Env) ByResource(known []string) (map[string][]topology.Address, error) {
	byName := map[string]string{}
	for _, r := range known {
		n := v1alpha1.EnvName(r)
		if other, ok := byName[n]; ok && other != r {
			return nil, fmt.Errorf("%w: resources %q and %q have the same variable %s%s; rename one", ErrEnv, other, r, v1alpha1.EnvKubeVirtPrefix, n)
		}
		byName[n] = r
	}
	out := make(map[string][]topology.Address, len(e))
	for n, addresses := range e {
		r, ok := byName[n]
		if !ok {
			r = n
		}
		out[r] = addresses
	}
	return out, nil
}
