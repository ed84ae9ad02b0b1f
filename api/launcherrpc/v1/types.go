package launcherrpcv1

import (
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Version is the version of this contract, the first part of every path.
const Version = "v1"

// Names inside a launcher container.
const (
	// SocketName is the socket's name in the launcher's run folder.
	SocketName = "launcher.sock"
	// Socket is where a launcher in a pod listens.
	Socket = v1alpha1.LauncherRunDir + "/" + SocketName
	// TerminationLog is kubelet's default terminationMessagePath.
	TerminationLog = "/dev/termination-log"
	// TerminationLogLimit is how many bytes kubelet reads of it.
	TerminationLogLimit = 4096
	// EnvStandby set to "true" makes the launcher hold its devices and wait for
	// a release before it starts QEMU.
	EnvStandby = "KUBEVFIO_STANDBY"
)

// Paths of the HTTP interface.
const (
	PathState      = "/" + Version + "/state"      // GET: State
	PathPause      = "/" + Version + "/pause"      // POST
	PathUnpause    = "/" + Version + "/unpause"    // POST
	PathStop       = "/" + Version + "/stop"       // POST: StopRequest
	PathSoftReboot = "/" + Version + "/softreboot" // POST
	PathReset      = "/" + Version + "/reset"      // POST
	PathRelease    = "/" + Version + "/release"    // POST: ends standby
	PathConsole    = "/" + Version + "/console"    // GET, Upgrade: UpgradeConsole
	PathVNC        = "/" + Version + "/vnc"        // GET, Upgrade: UpgradeVNC
	PathScreenshot = "/" + Version + "/screenshot" // GET: image/png
	PathDomainXML  = "/" + Version + "/domain"     // GET: application/xml
	PathGuestInfo  = "/" + Version + "/guestinfo"  // GET: GuestInfo, by the guest's agent
)

// Values of the Upgrade header.
const (
	UpgradeConsole = "kubevfio-console"
	UpgradeVNC     = "kubevfio-vnc"
)

// Phase is where a launcher is on its way.
type Phase string

// The phases in their usual order.
const (
	// PhasePreparing: reading inputs, checking devices, building the domain.
	PhasePreparing Phase = "Preparing"
	// PhaseStandby: everything is checked and held; QEMU waits for a release.
	PhaseStandby Phase = "Standby"
	// PhaseStarting: libvirt starts QEMU.
	PhaseStarting Phase = "Starting"
	PhaseRunning  Phase = "Running"
	PhasePaused   Phase = "Paused"
	// PhaseStopping: a shutdown was asked for and the guest has not ended yet.
	PhaseStopping Phase = "Stopping"
	PhaseEnded    Phase = "Ended"
)

// State is the answer of [PathState].
type State struct {
	// Version of the launcher.
	Version string `json:"version"`
	Phase   Phase  `json:"phase"`
	// Since is when Phase began.
	Since time.Time `json:"since"`
	// Domain is libvirt's name of the domain and UUID its UUID; empty before
	// the domain was built.
	Domain string `json:"domain,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	// PodUID, PodName and PodNamespace are from the downward API.
	PodUID       string `json:"podUID,omitempty"`
	PodName      string `json:"podName,omitempty"`
	PodNamespace string `json:"podNamespace,omitempty"`
	// Supervisor says who answers.
	Supervisor Supervisor `json:"supervisor"`
	// QEMUPID is QEMU's process in the pod, 0 when there is none.
	QEMUPID int `json:"qemuPID,omitempty"`
	// Devices are the host devices that the guest was given.
	Devices []Device `json:"devices,omitempty"`
	// Timings are the phases of the start, in order.
	Timings []Timing `json:"timings,omitempty"`
	// GuestReboots counts the guest's own reboots.
	GuestReboots int `json:"guestReboots,omitempty"`
	// Outcome is set in PhaseEnded.
	Outcome *Outcome `json:"outcome,omitempty"`
}

// Supervisor is the process that drives libvirt.
type Supervisor struct {
	PID int `json:"pid"`
	// Restarts counts how often PID 1 had to start it again.
	Restarts int `json:"restarts"`
	// Adopted says that it found the guest running.
	Adopted bool `json:"adopted"`
	// Libvirt is "embedded" or "daemon"; the versions are libvirt's and QEMU's.
	Libvirt        string `json:"libvirt,omitempty"`
	LibvirtVersion string `json:"libvirtVersion,omitempty"`
	QEMUVersion    string `json:"qemuVersion,omitempty"`
}

// Device is a unit of the host in the guest.
type Device struct {
	// Name in the spec, Resource that it came from and its address on the host.
	Name     string `json:"name,omitempty"`
	Resource string `json:"resource"`
	Host     string `json:"host"`
	// TakenAway: the host has removed it while the guest ran.
	TakenAway bool `json:"takenAway,omitempty"`
}

// Timing is how long one step of the start took.
type Timing struct {
	Step string `json:"step"`
	// Seconds of wall time.
	Seconds float64 `json:"seconds"`
}

// StopRequest is the body of [PathStop]. The zero value means: ask the guest,
// wait for the grace period of the spec, then end it.
type StopRequest struct {
	// GracePeriodSeconds replaces the spec's; 0 ends the guest at once.
	GracePeriodSeconds *int64 `json:"gracePeriodSeconds,omitempty"`
}

// Failure is the body of an answer whose status is not 2xx.
type Failure struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons of an [Outcome], one word each, stable for programs.
const (
	ReasonGuestShutdown    = "GuestShutdown"
	ReasonStopped          = "Stopped"           // asked to stop, guest had not started
	ReasonForcedOff        = "ForcedOff"         // grace period over, guest destroyed
	ReasonBadSpec          = "BadSpec"           // 64
	ReasonAssignment       = "AssignmentDiffers" // 65: assignment, environment and /sys differ
	ReasonDeviceNotViable  = "DeviceNotViable"   // 65
	ReasonMemoryLock       = "MemoryLock"        // 66
	ReasonHostCannotHold   = "HostCannotHold"    // 67: too few CPUs, huge pages or address bits here
	ReasonQEMUDidNotStart  = "QEMUDidNotStart"   // 67
	ReasonGuestPanicked    = "GuestPanicked"     // 68
	ReasonQEMUDied         = "QEMUDied"          // 69
	ReasonQEMUOutOfMemory  = "QEMUOutOfMemory"   // 69: the kernel killed QEMU alone
	ReasonLauncherInternal = "LauncherInternal"  // 70
)

// Outcome is how a launcher ended: JSON in the container's termination message,
// at most [TerminationLogLimit] bytes.
type Outcome struct {
	// ExitCode of the container; see the Exit constants of package v1alpha1.
	ExitCode int `json:"exitCode"`
	// Reason is one of the Reason constants.
	Reason string `json:"reason"`
	// Message says what happened and what to do, for people.
	Message string `json:"message"`
	// Field is the path in the VM's spec that the reason is about, if any.
	Field string `json:"field,omitempty"`
	// Address is the PCI address that the reason is about, if any.
	Address string `json:"address,omitempty"`
	// Seconds are the steps of the start with their wall time.
	Seconds map[string]float64 `json:"seconds,omitempty"`
	// SupervisorRestarts counts how often the supervisor was restarted.
	SupervisorRestarts int `json:"supervisorRestarts,omitempty"`
}
