package launcherrpcv1

import "time"

// Exit codes of `kubevfio-launcher proxy`, for callers by pods/exec, to whom an
// exit code is all that is left of an error's class.
const (
	// ProxyNotSupported: this guest has no such thing.
	ProxyNotSupported = 72
	// ProxyConflict: not possible in the launcher's present phase.
	ProxyConflict = 73
	// ProxyUnavailable: no supervisor answers; it may be starting.
	ProxyUnavailable = 74
)

// GuestInfo is what the guest's own agent says. Nothing of it is checked: a guest
// can say anything. What the agent does not tell is absent.
type GuestInfo struct {
	Hostname    string            `json:"hostname,omitempty"`
	OS          *GuestOS          `json:"os,omitempty"`
	Timezone    string            `json:"timezone,omitempty"`
	Users       []GuestUser       `json:"users,omitempty"`
	Interfaces  []GuestInterface  `json:"interfaces,omitempty"`
	FileSystems []GuestFileSystem `json:"fileSystems,omitempty"`
}

// GuestOS is the guest's operating system, by its os-release file.
type GuestOS struct {
	ID            string `json:"id,omitempty"`
	Name          string `json:"name,omitempty"`
	PrettyName    string `json:"prettyName,omitempty"`
	Version       string `json:"version,omitempty"`
	VersionID     string `json:"versionId,omitempty"`
	KernelRelease string `json:"kernelRelease,omitempty"`
	KernelVersion string `json:"kernelVersion,omitempty"`
	Machine       string `json:"machine,omitempty"`
}

// GuestUser is somebody logged in.
type GuestUser struct {
	Name      string     `json:"name"`
	LoginTime *time.Time `json:"loginTime,omitempty"`
}

// GuestInterface is a network interface of the guest's.
type GuestInterface struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// GuestFileSystem is a mounted file system.
type GuestFileSystem struct {
	MountPoint string `json:"mountPoint"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type,omitempty"`
	// TotalBytes and UsedBytes are 0 where the agent does not say.
	TotalBytes uint64 `json:"totalBytes,omitempty"`
	UsedBytes  uint64 `json:"usedBytes,omitempty"`
}
