package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/test/lab/artifacts"
	"github.com/kubevfio/kubevfio/test/lab/supervise"
)

// daemonEnv, when set, turns this program into the daemon of the lab in the named state folder.
const daemonEnv = "KUBEVFIO_LAB_DAEMON"

// File descriptors that the daemon is born with.
const (
	fdLock     = 3 + iota // the lab's lock, held for life
	fdListener            // a listening socket on the host's loopback, for the API server
	fdProgress            // progress messages to whoever ran Up
	fdLease               // closed when the caller is gone; a byte on it sets us free
)

const qemuBinary = "/usr/bin/qemu-system-x86_64"

// progress is one line from the daemon to the caller of Up.
type progress struct {
	Line  string `json:"line,omitempty"`
	Phase *Phase `json:"phase,omitempty"`
	Error string `json:"error,omitempty"`
	Ready bool   `json:"ready,omitempty"`
}

// Phase is one step of the way to a usable lab.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// daemon owns a lab.
type daemon struct {
	dir     stateDir
	cfg     Config
	set     *artifacts.Set
	jail    string
	procs   *supervise.Supervisor
	pki     *pki
	api     *rest
	nodes   []machine
	bin     string
	started time.Time

	fatal  chan error
	leases []*os.File

	mu       sync.Mutex
	info     *info
	monitors map[string]*qmpClient
	progress *os.File

	// resets are by node those that the node brought about itself, once it had been ready. Their own lock: monitor holds the
	// other while it waits for what the reader of events hands it.
	resetsMu sync.Mutex
	resets   map[string]int
}

// Init must be called first in main and in TestMain of every program that calls [Up]. In the lab's daemon, which is this
// program executed again, it does not return.
func Init() {
	dir := os.Getenv(daemonEnv)
	initCalled.Store(true)
	if dir == "" {
		return
	}
	if err := os.Unsetenv(daemonEnv); err != nil {
		os.Exit(1)
	}
	d := &daemon{dir: stateDir(dir), started: time.Now(), fatal: make(chan error, 16), monitors: map[string]*qmpClient{}, resets: map[string]int{},
		progress: os.NewFile(fdProgress, "progress")}
	d.procs = supervise.New(d.logf)
	err := d.main()
	d.end(err)
}

// end ends the daemon; as it is PID 1 of its namespace, the kernel ends everything else.
func (d *daemon) end(err error) {
	if err != nil {
		d.logf("ending: %v", err)
		d.tell(progress{Error: err.Error()})
		os.Exit(1)
	}
	d.logf("ending")
	os.Exit(0)
}

// logf writes to the daemon's log, which is its standard error.
func (d *daemon) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().UTC().Format("15:04:05.000")}, args...)...)
}

func (d *daemon) tell(p progress) {
	b, err := json.Marshal(p)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// Nobody listens once Up is over: not an error.
	_, _ = d.progress.Write(append(b, '\n'))
}

// phase runs a step and reports its seconds.
func (d *daemon) phase(name string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p := Phase{Name: name, Seconds: time.Since(start).Seconds()}
	d.mu.Lock()
	d.info.Phases = append(d.info.Phases, p)
	d.mu.Unlock()
	d.logf("phase %s: %.1f s", p.Name, p.Seconds)
	d.tell(progress{Phase: &p})
	return nil
}

func (d *daemon) main() error {
	// procfs is still the host's: its "self" is our PID there.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return err
	}
	start, _ := processStart("/proc", pid)
	if os.Getpid() != 1 {
		return errors.New("the daemon is not alone in a PID namespace")
	}
	for _, fd := range []int{fdLock, fdListener, fdProgress, fdLease} {
		unix.CloseOnExec(fd)
	}
	var order startOrder
	b, err := os.ReadFile(d.dir.path("order.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &order); err != nil {
		return err
	}
	d.prioritise(order.Config.Nice)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	d.cfg, d.set, d.bin = order.Config, order.Config.Artifacts, order.BinDisk
	d.cfg.Progress = func(string, ...any) {}
	token := make([]byte, 16)
	if _, err := rand.Read(token); err != nil {
		return err
	}
	d.info = &info{PID: pid, StartTime: start, Since: time.Now().UTC(), Config: d.cfg, Server: order.Server, Token: hex.EncodeToString(token), Phases: order.Phases}
	if err := d.dir.writeInfo(d.info); err != nil {
		return err
	}

	if err := d.holdArtifacts(); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go d.procs.Reap(ctx)
	go d.watchLease()

	control, err := net.Listen("unix", d.dir.socket())
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	go d.serveControl(ctx, control)
	if err := d.forwardAPI(); err != nil {
		return err
	}
	if err := d.bringUp(ctx); err != nil {
		return err
	}
	go d.trimCPULogs(ctx)
	d.info.Ready = true
	if err := d.dir.writeInfo(d.info); err != nil {
		return err
	}
	d.tell(progress{Ready: true})
	select {} // watchLease or a "down" ends us
}

// watchLease ends the lab when the caller of Up is gone, unless it has let go of us before.
func (d *daemon) watchLease() {
	lease := os.NewFile(fdLease, "lease")
	n, err := lease.Read(make([]byte, 1))
	if n == 1 {
		d.logf("set free")
		return
	}
	if err != nil && !errors.Is(err, io.EOF) {
		d.logf("lease: %v", err)
	}
	d.end(errors.New("the process that holds this lab's lease has ended"))
}

// forwardAPI passes connections from the host's loopback to the API server.
func (d *daemon) forwardAPI() error {
	f := os.NewFile(fdListener, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("listener for the API server: %w", err)
	}
	f.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				d.logf("API forwarder: %v", err)
				return
			}
			go func() {
				to, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", apiPort), 5*time.Second)
				if err != nil {
					conn.Close()
					return
				}
				splice(conn, to)
			}()
		}
	}()
	return nil
}

// bringUp starts everything and waits until every node is ready.
func (d *daemon) bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("gave up after 10 minutes"))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case err := <-d.fatal:
			stop(err)
		case <-ctx.Done():
		}
	}()

	if err := d.phase("namespaces, disks", func() error { return d.prepare(ctx) }); err != nil {
		return err
	}
	for _, m := range d.nodes {
		if err := d.startNode(m); err != nil {
			return err
		}
	}
	if err := d.phase("control plane", func() error { return d.startControlPlane(ctx) }); err != nil {
		return err
	}
	return d.phase("nodes ready", func() error { return d.waitForNodes(ctx) })
}

func (d *daemon) prepare(ctx context.Context) error {
	var err error
	if d.pki, err = newPKI(d.cfg.nodes()); err != nil {
		return err
	}
	kc, err := d.pki.kubeconfig(userAdmin, d.info.Server)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.dir.kubeconfig(), kc, 0o600); err != nil {
		return err
	}
	if d.api, err = newREST(fmt.Sprintf("https://127.0.0.1:%d", apiPort), d.pki.ca.certPEM(), d.pki.clients[userAdmin]); err != nil {
		return err
	}
	d.jail = d.dir.path("jail")
	shared := []string{string(d.dir)}
	for _, f := range []string{d.set.NodeRootDisk, d.set.ImagesDisk, d.set.NodeKernel, d.set.NodeInitrd} {
		shared = append(shared, filepath.Dir(f))
	}
	if err := mountJail(d.jail, d.set.QEMURoot, compact(shared)); err != nil {
		return err
	}
	v, err := chooseAccel(ctx, d.cfg.Accel, filepath.Join(filepath.Dir(string(d.dir)), "kvm-trial.json"), d.trialBoot, trialKey(d.set.NodeKernel))
	if err != nil {
		return err
	}
	d.info.Accel = AccelTCG
	if v.KVM {
		d.info.Accel = AccelKVM
	}
	d.tell(progress{Line: fmt.Sprintf("nodes run with %s: %s", d.info.Accel, v.Reason)})
	d.logf("nodes run with %s: %s", d.info.Accel, v.Reason)

	for _, n := range d.cfg.nodes() {
		d.nodes = append(d.nodes, machine{cfg: d.cfg, node: n, accel: d.info.Accel, dir: d.dir.path("nodes", n.Name), logs: d.dir.logs(),
			kernel: d.set.NodeKernel, initrd: d.set.NodeInitrd, bin: d.bin, console: nodeLog(d.dir.logs(), n.Name, "console")})
	}
	if err := setupNetwork(d.nodes); err != nil {
		return err
	}
	for _, m := range d.nodes {
		archive, err := nodeArchive(d.cfg, m.node, d.pki, d.info.Token)
		if err != nil {
			return err
		}
		if err := makeDisks(m, d.set, archive, d.runInJail); err != nil {
			return err
		}
	}
	return d.dir.writeInfo(d.info)
}

// prioritise sets the priority of the lab. With autogroups a nice value counts only inside a session, and the daemon leads a
// session of its own: the session's value is what counts against the rest of the machine.
func (d *daemon) prioritise(nice int) {
	if err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0); err == nil {
		return
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		d.logf("priority %d: %v", nice, err)
	}
}

// holdArtifacts takes leases on the cache entries in use, so that no build of another checkout prunes them under a lab that
// has outlived its own build: each entry has a lock file beside it, and a shared lock is a lease (package artifacts).
func (d *daemon) holdArtifacts() error {
	paths := []string{d.set.QEMURoot, d.set.NodeRootDisk, d.set.NodeKernel, d.set.NodeInitrd, d.set.ImagesDisk}
	for _, p := range d.set.Bin {
		paths = append(paths, p)
	}
	held := map[string]bool{}
	for _, p := range paths {
		for ; p != "/" && p != "."; p = filepath.Dir(p) {
			lock := p + ".lock"
			if held[lock] {
				break
			}
			f, err := os.Open(lock)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("lease on an artifact: %w", err)
			}
			if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
				return fmt.Errorf("lease on %s: %w", p, err)
			}
			held[lock] = true
			d.leases = append(d.leases, f) // for life
			break
		}
	}
	return nil
}

func (d *daemon) runInJail(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: d.jail}
	return d.procs.Run(cmd)
}

// compact drops doubles.
func compact(in []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
