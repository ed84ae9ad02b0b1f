package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Device is one entry of the list that kubelet gets. ID has at most 63
// characters.
type Device struct {
	ID      string
	Healthy bool
	// NUMA is the device's NUMA node, nil when unknown or not to be told.
	NUMA *int
}

func (d Device) equal(o Device) bool {
	return d.ID == o.ID && d.Healthy == o.Healthy &&
		(d.NUMA == nil) == (o.NUMA == nil) && (d.NUMA == nil || *d.NUMA == *o.NUMA)
}

// Handler answers kubelet's questions about one resource. Errors of Preferred
// and Allocate fail the pod's admission for good; an error of PreStart fails one
// attempt to start a container, which kubelet repeats.
type Handler interface {
	// Preferred returns exactly size of the available IDs, including all of
	// must. The IDs of a question are parts of one text: who keeps one after the
	// call keeps that memory.
	Preferred(ctx context.Context, available, must []string, size int) ([]string, error)
	// Allocate says what the container gets for these IDs.
	Allocate(ctx context.Context, ids []string) (*pluginapi.ContainerAllocateResponse, error)
	// PreStart returns when a container with these IDs may start.
	PreStart(ctx context.Context, ids []string) error
}

// Observer hears of calls, for metrics. Methods must not block.
type Observer interface {
	// RPC of this name took d and ended with err.
	RPC(resource, name string, d time.Duration, err error)
	// Registered is called after each attempt to register.
	Registered(resource string, err error)
}

// Limits of the protocol's timing.
const (
	// RPCLimit bounds Preferred and Allocate.
	RPCLimit = time.Second
	// PreStartLimit bounds PreStart; kubelet gives up after 30 s.
	PreStartLimit = 25 * time.Second
	// maxMessage bounds requests; kubelet sends all available IDs of a resource.
	maxMessage = 64 << 20
)

// Errors of the plugin itself, by class.
var (
	// ErrRegister: kubelet did not take the registration.
	ErrRegister = errors.New("kubelet did not register the device plugin")
	// ErrStream: kubelet registered the plugin but does not listen to it.
	ErrStream = errors.New("kubelet does not watch the device plugin")
)

// Config of a Plugin. Resource, Dir and Watcher are required.
type Config struct {
	Resource string
	// Dir is kubelet's device plugin folder, normally
	// /var/lib/kubelet/device-plugins.
	Dir string
	// Watcher tells of changes in Dir; it may be shared.
	Watcher *Watcher
	// Steer asks kubelet to call GetPreferredAllocation, PreStart to call
	// PreStartContainer.
	Steer, PreStart bool
	// Batch is the least time between two messages on a stream; default 500 ms.
	// The first change after a quiet time waits a tenth of it.
	Batch time.Duration
	// Settle is how long kubelet has to notice the end of the former server
	// before the next registers; default 300 ms.
	Settle time.Duration
	// StreamWait is how long kubelet has to open the stream after Register;
	// default 10 s.
	StreamWait time.Duration
	// OnRegister is called before every registration: kubelet may be new.
	OnRegister func()
	Observer   Observer
	Log        *slog.Logger
}

// Plugin serves one resource. Make it with New, then Run it.
type Plugin struct {
	cfg     Config
	handler Handler

	mu      sync.Mutex
	devices []Device
	known   bool          // SetDevices was called
	changed chan struct{} // closed and replaced at each change

	quiet         quiet
	streams       atomic.Int64
	registrations atomic.Int64
}

// New builds a plugin; it does nothing until Run.
func New(cfg Config, h Handler) *Plugin {
	if cfg.Batch == 0 {
		cfg.Batch = 500 * time.Millisecond
	}
	if cfg.Settle == 0 {
		cfg.Settle = 300 * time.Millisecond
	}
	if cfg.StreamWait == 0 {
		cfg.StreamWait = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	cfg.Log = cfg.Log.With("resource", cfg.Resource)
	return &Plugin{cfg: cfg, handler: h, changed: make(chan struct{})}
}

type noObserver struct{}

func (noObserver) RPC(string, string, time.Duration, error) {}
func (noObserver) Registered(string, error)                 {}

// SetDevices replaces the list. Kubelet hears of it only if it differs from the
// last one; the order does not matter. The plugin registers after the first
// call.
func (p *Plugin) SetDevices(devices []Device) {
	devices = slices.Clone(devices)
	slices.SortFunc(devices, func(a, b Device) int {
		if a.ID < b.ID {
			return -1
		} else if a.ID > b.ID {
			return 1
		}
		return 0
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known && slices.EqualFunc(p.devices, devices, Device.equal) {
		return
	}
	p.devices, p.known = devices, true
	close(p.changed)
	p.changed = make(chan struct{})
}

// list gives the devices and a channel that closes at the next change.
func (p *Plugin) list() ([]Device, bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.devices, p.known, p.changed
}

// Serving says whether kubelet listens to the plugin now.
func (p *Plugin) Serving() bool { return p.streams.Load() > 0 }

// Registrations counts successful registrations.
func (p *Plugin) Registrations() int64 { return p.registrations.Load() }

// Resource is the resource's name.
func (p *Plugin) Resource() string { return p.cfg.Resource }

// Run keeps the plugin registered until ctx ends; it returns ctx's error.
func (p *Plugin) Run(ctx context.Context) error {
	for {
		_, known, changed := p.list()
		if known {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	const least, most = 250 * time.Millisecond, 8 * time.Second
	backoff := least
	for ctx.Err() == nil {
		served, err := p.serveOnce(ctx)
		if ctx.Err() != nil {
			break
		}
		if served {
			backoff = least
			p.cfg.Log.Info("device plugin connection ended, registering again", "why", err)
		} else {
			p.cfg.Log.Warn("device plugin is not registered", "err", err, "retryIn", backoff)
		}
		wait := backoff
		if served {
			wait = p.cfg.Settle
		}
		p.pause(ctx, wait)
		if !served {
			backoff = min(2*backoff, most)
		}
	}
	return ctx.Err()
}

// pause waits for d; a kubelet that comes up meanwhile cuts it short. Only its
// socket counts: those of other plugins come and go with their own attempts.
func (p *Plugin) pause(ctx context.Context, d time.Duration) {
	path := p.cfg.Watcher.kubeletSocket()
	before, _ := identify(path)
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		changed := p.cfg.Watcher.Changed()
		if now, err := identify(path); err == nil && now != before {
			d = min(d, p.cfg.Settle)
			t.Reset(d)
			before = now
		}
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// serveOnce runs one server from its registration to its end. It says whether
// kubelet ever listened.
func (p *Plugin) serveOnce(ctx context.Context) (served bool, err error) {
	kubelet, err := identify(p.cfg.Watcher.kubeletSocket())
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrRegister, err)
	}
	s, err := p.listen()
	if err != nil {
		return false, err
	}
	defer s.stop()
	if p.cfg.OnRegister != nil {
		p.cfg.OnRegister()
	}
	err = s.register(ctx, p.cfg.Watcher.kubeletSocket())
	p.cfg.Observer.Registered(p.cfg.Resource, err)
	if err != nil {
		return false, err
	}
	select {
	case <-s.watched:
	case <-time.After(p.cfg.StreamWait):
		return false, fmt.Errorf("%w: no ListAndWatch within %v of registration", ErrStream, p.cfg.StreamWait)
	case <-ctx.Done():
		return false, ctx.Err()
	}
	p.registrations.Add(1)
	p.cfg.Log.Info("device plugin registered", "socket", s.name)
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-s.ended:
			return true, fmt.Errorf("%w: its stream ended", ErrStream)
		case <-p.cfg.Watcher.Changed():
		case <-time.After(p.cfg.Watcher.poll):
		}
		if _, err := identify(s.path); err != nil {
			return true, fmt.Errorf("%w: own socket is gone: %w", ErrStream, err)
		}
		if now, err := identify(p.cfg.Watcher.kubeletSocket()); err == nil && now != kubelet {
			return true, fmt.Errorf("%w: kubelet made a new socket", ErrStream)
		}
	}
}
