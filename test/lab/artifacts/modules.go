package artifacts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// moduleIndex is what depmod wrote about a kernel's modules.
type moduleIndex struct {
	dir     string              // lib/modules/RELEASE
	files   map[string]string   // module name to path below dir
	deps    map[string][]string // module name to names, the ones to load first at the end
	aliases map[string][]string // module name to its alias patterns
}

// moduleName is the name that the kernel gives to the module in a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// parseModulesDep reads modules.dep: "path: path path", the last dependency being the first to load.
func (m *moduleIndex) parseModulesDep(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		name := moduleName(file)
		m.files[name] = file
		for _, dep := range strings.Fields(rest) {
			m.deps[name] = append(m.deps[name], moduleName(dep))
		}
	}
	return lines.Err()
}

// parseModulesAlias reads modules.alias: "alias PATTERN MODULE".
func (m *moduleIndex) parseModulesAlias(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "alias" {
			name := moduleName(f[2])
			m.aliases[name] = append(m.aliases[name], f[1])
		}
	}
	return lines.Err()
}

// readModules reads the index in a root file system.
func readModules(tree, release string) (*moduleIndex, error) {
	m := &moduleIndex{
		dir:   filepath.Join(tree, "usr/lib/modules", release),
		files: map[string]string{}, deps: map[string][]string{}, aliases: map[string][]string{},
	}
	for name, parse := range map[string]func(io.Reader) error{"modules.dep": m.parseModulesDep, "modules.alias": m.parseModulesAlias} {
		f, err := os.Open(filepath.Join(m.dir, name))
		if err != nil {
			return nil, fmt.Errorf("read the kernel's modules: %w", err)
		}
		err = parse(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read the kernel's %s: %w", name, err)
		}
	}
	return m, nil
}

// closure answers the names with all that they need, in an order in which they can be loaded. Names that the kernel has no
// module for are left out: they are built in.
func (m *moduleIndex) closure(names ...string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(name string) {
		if _, ok := m.files[name]; ok && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, name := range names {
		name = moduleName(name)
		deps := m.deps[name]
		for i := len(deps) - 1; i >= 0; i-- {
			add(deps[i])
		}
		add(name)
	}
	return out
}

// read answers a module, uncompressed: decompressing under emulation takes longer than reading the larger file.
func (m *moduleIndex) read(ctx context.Context, name string) ([]byte, error) {
	file := filepath.Join(m.dir, m.files[name])
	switch filepath.Ext(file) {
	case ".ko":
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a kernel module: %w", err)
		}
		return data, nil
	case ".xz":
		out, err := command{args: []string{"xz", "-dc", file}}.run(ctx)
		return []byte(out), err
	default:
		return nil, fmt.Errorf("kernel module %s has a compression that the lab does not know", file)
	}
}

// addTo writes modules into an initramfs as lib/modules/NAME.ko and answers their paths in the order given.
func (m *moduleIndex) addTo(ctx context.Context, c *cpioWriter, names []string) ([]string, error) {
	paths := make([]string, 0, len(names))
	for _, name := range names {
		data, err := m.read(ctx, name)
		if err != nil {
			return nil, err
		}
		p := "lib/modules/" + name + ".ko"
		c.file(p, 0o644, data)
		paths = append(paths, p)
	}
	return paths, nil
}

// manifest is the guest's list of modules: one line per module in loading order, "name dep,dep alias alias …", "-" standing
// for no dependencies. The guest loads a module when one of its aliases matches a device.
func (m *moduleIndex) manifest(names []string) string {
	var b strings.Builder
	for _, name := range names {
		deps := strings.Join(m.deps[name], ",")
		if deps == "" {
			deps = "-"
		}
		aliases := append([]string{}, m.aliases[name]...)
		sort.Strings(aliases)
		fmt.Fprintf(&b, "%s %s %s\n", name, deps, strings.Join(aliases, " "))
	}
	return b.String()
}
