//go:build libvirt_dlopen && cgo

package virt

import (
	"errors"
	"fmt"
	"runtime"

	"libvirt.org/go/libvirt"
)

// Available says whether this build can drive libvirt.
const Available = true

// Conn is a connection to libvirt. Its methods are safe for concurrent use.
type Conn struct {
	c *libvirt.Connect
}

// Guest is a domain. Its methods are safe for concurrent use.
type Guest struct {
	d *libvirt.Domain
}

// Open starts libvirt's event loop and connects. For [Embedded] this loads the
// driver into the process, which then finds guests that an earlier process left
// running under the same root.
func Open(o Options) (*Conn, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := libvirt.EventRegisterDefaultImpl(); err != nil {
		return nil, fmt.Errorf("start libvirt's event loop: %w", plain(err))
	}
	go func() {
		runtime.LockOSThread()
		for {
			// It fails only when it could not be set up; then the next call
			// fails too, and nothing would tell us of the guest's end.
			if err := libvirt.EventRunDefaultImpl(); err != nil {
				o.Events(Event{Kind: EventLost})
				return
			}
		}
	}()
	uri := "qemu:///embed?root=" + o.Root
	if o.Mode == Daemon {
		uri = "qemu+unix:///session?socket=" + DaemonSocket(o.Root)
	}
	c, err := libvirt.NewConnect(uri)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", uri, plain(err))
	}
	conn := &Conn{c: c}
	if err := conn.watch(o); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// watch registers for events. With a daemon it also notices its death.
func (c *Conn) watch(o Options) error {
	q := newQueue(o.Events)
	post := func(d *libvirt.Domain, kind EventKind) {
		name, err := d.GetName()
		if err != nil {
			name = ""
		}
		q.in <- Event{Domain: name, Kind: kind}
	}
	_, err := c.c.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
		if kind := lifecycle(e); kind != "" {
			post(d, kind)
		}
	})
	if err != nil {
		return fmt.Errorf("watch the guest: %w", plain(err))
	}
	if _, err := c.c.DomainEventRebootRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain) { post(d, EventReboot) }); err != nil {
		return fmt.Errorf("watch the guest: %w", plain(err))
	}
	// QEMU gives a device back whose driver on the host asks for it.
	_, err = c.c.DomainEventDeviceRemovedRegister(nil, func(_ *libvirt.Connect, _ *libvirt.Domain, e *libvirt.DomainEventDeviceRemoved) {
		q.in <- Event{Kind: EventDeviceGone, Device: e.DevAlias}
	})
	if err != nil {
		return fmt.Errorf("watch the guest: %w", plain(err))
	}
	if o.Mode != Daemon {
		return nil
	}
	if err := c.c.RegisterCloseCallback(func(*libvirt.Connect, libvirt.ConnectCloseReason) { q.in <- Event{Kind: EventLost} }); err != nil {
		return fmt.Errorf("watch libvirtd: %w", plain(err))
	}
	if err := c.c.SetKeepAlive(5, 6); err != nil {
		return fmt.Errorf("watch libvirtd: %w", plain(err))
	}
	return nil
}

// lifecycle translates an event; those of no interest give "".
func lifecycle(e *libvirt.DomainEventLifecycle) EventKind {
	switch e.Event {
	case libvirt.DOMAIN_EVENT_STARTED:
		return EventStarted
	case libvirt.DOMAIN_EVENT_SUSPENDED:
		return EventPaused
	case libvirt.DOMAIN_EVENT_RESUMED:
		return EventResumed
	case libvirt.DOMAIN_EVENT_SHUTDOWN:
		return EventShutdown
	case libvirt.DOMAIN_EVENT_CRASHED:
		return EventPanicked
	case libvirt.DOMAIN_EVENT_STOPPED:
		switch libvirt.DomainEventStoppedDetailType(e.Detail) {
		case libvirt.DOMAIN_EVENT_STOPPED_SHUTDOWN:
			return EventEnded
		case libvirt.DOMAIN_EVENT_STOPPED_DESTROYED:
			return EventDestroyed
		case libvirt.DOMAIN_EVENT_STOPPED_CRASHED:
			return EventPanicked
		default:
			return EventFailed
		}
	default:
		return ""
	}
}

// Versions asks libvirt for its own and QEMU's version.
func (c *Conn) Versions() (Versions, error) {
	l, err := c.c.GetLibVersion()
	if err != nil {
		return Versions{}, fmt.Errorf("ask for libvirt's version: %w", plain(err))
	}
	q, err := c.c.GetVersion()
	if err != nil {
		return Versions{}, fmt.Errorf("ask for QEMU's version: %w", plain(err))
	}
	dotted := func(v uint32) string { return fmt.Sprintf("%d.%d.%d", v/1000000, v/1000%1000, v%1000) }
	return Versions{Libvirt: dotted(l), QEMU: dotted(q)}, nil
}

// Create starts QEMU with a transient domain, its CPUs stopped: [Resume] lets
// the guest run. It returns when QEMU is set up, memory preallocated and
// devices opened, or with QEMU's own words when that failed.
func (c *Conn) Create(xml string) (*Guest, error) {
	d, err := c.c.DomainCreateXML(xml, libvirt.DOMAIN_START_PAUSED)
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", plain(err))
	}
	return &Guest{d: d}, nil
}

// Lookup finds a domain by its name; [ErrNoDomain] says that there is none.
func (c *Conn) Lookup(name string) (*Guest, error) {
	d, err := c.c.LookupDomainByName(name)
	if err != nil {
		return nil, fmt.Errorf("look for domain %s: %w", name, plain(err))
	}
	return &Guest{d: d}, nil
}

// Close ends the connection. A running guest runs on.
func (c *Conn) Close() error {
	if _, err := c.c.Close(); err != nil {
		return fmt.Errorf("close libvirt: %w", plain(err))
	}
	return nil
}

// State asks what the domain is doing.
func (g *Guest) State() (State, error) {
	s, reason, err := g.d.GetState()
	if err != nil {
		return "", fmt.Errorf("ask for the guest's state: %w", plain(err))
	}
	switch s {
	case libvirt.DOMAIN_RUNNING, libvirt.DOMAIN_BLOCKED, libvirt.DOMAIN_PMSUSPENDED:
		return StateRunning, nil
	case libvirt.DOMAIN_PAUSED:
		switch libvirt.DomainPausedReason(reason) {
		case libvirt.DOMAIN_PAUSED_STARTING_UP:
			return StateStarting, nil
		case libvirt.DOMAIN_PAUSED_CRASHED:
			return StateCrashed, nil
		case libvirt.DOMAIN_PAUSED_SHUTTING_DOWN:
			return StateShutdown, nil
		default:
			return StatePaused, nil
		}
	case libvirt.DOMAIN_SHUTDOWN:
		return StateShutdown, nil
	case libvirt.DOMAIN_CRASHED:
		return StateCrashed, nil
	default:
		return StateOff, nil
	}
}

// Do does something to the domain. It returns when libvirt has asked for it;
// whether the guest obeys a [Shutdown] or [Reboot] is told by events.
func (g *Guest) Do(a Action) error {
	var err error
	switch a {
	case Resume:
		err = g.d.Resume()
	case Pause:
		err = g.d.Suspend()
	case Shutdown:
		err = g.d.ShutdownFlags(libvirt.DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
	case Reboot:
		err = g.d.Reboot(libvirt.DOMAIN_REBOOT_ACPI_POWER_BTN)
	case Reset:
		err = g.d.Reset(0)
	case Destroy:
		err = g.d.DestroyFlags(libvirt.DOMAIN_DESTROY_GRACEFUL)
		var le libvirt.Error
		if errors.As(err, &le) && le.Code == libvirt.ERR_SYSTEM_ERROR || errors.As(err, &le) && le.Code == libvirt.ERR_OPERATION_FAILED {
			// QEMU did not end on SIGTERM within libvirt's 15 s.
			err = g.d.DestroyFlags(libvirt.DOMAIN_DESTROY_DEFAULT)
		}
	default:
		return fmt.Errorf("%w: action %q", ErrNotSupported, a)
	}
	if err != nil {
		return fmt.Errorf("%s the guest: %w", a, plain(err))
	}
	return nil
}

// XML is libvirt's description of the running domain.
func (g *Guest) XML() (string, error) {
	s, err := g.d.GetXMLDesc(0)
	if err != nil {
		return "", fmt.Errorf("ask for the domain's XML: %w", plain(err))
	}
	return s, nil
}

// plain strips libvirt's error codes, keeps its words, and classes what callers
// ask about.
func plain(err error) error {
	var le libvirt.Error
	if !errors.As(err, &le) {
		return err
	}
	switch le.Code {
	case libvirt.ERR_NO_DOMAIN:
		return fmt.Errorf("%w: %s", ErrNoDomain, le.Message)
	case libvirt.ERR_AGENT_UNRESPONSIVE, libvirt.ERR_AGENT_UNSYNCED:
		return fmt.Errorf("%w: %s", ErrAgent, le.Message)
	case libvirt.ERR_NO_SUPPORT, libvirt.ERR_CONFIG_UNSUPPORTED, libvirt.ERR_OPERATION_UNSUPPORTED, libvirt.ERR_ARGUMENT_UNSUPPORTED:
		return fmt.Errorf("%w: %s", ErrNotSupported, le.Message)
	default:
		return errors.New(le.Message)
	}
}
