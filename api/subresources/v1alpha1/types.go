package subresourcesv1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Group and Version of the API.
const (
	Group   = "subresources." + v1alpha1.Group
	Version = v1alpha1.Version
	// GroupVersion as in a body's apiVersion.
	GroupVersion = Group + "/" + Version
)

// Resources that have subresources here.
const (
	Machines  = "virtualmachines"
	Instances = "virtualmachineinstances"
)

// Subresources of [Machines]: PUT.
const (
	Start   = "start"   // StartOptions
	Stop    = "stop"    // StopOptions
	Restart = "restart" // RestartOptions
)

// Subresources of [Instances]. The first three are PUT, the others GET.
const (
	Pause      = "pause"
	Unpause    = "unpause"
	SoftReboot = "softreboot"

	Console    = "console"    // WebSocket of protocol [Plain]: the serial line
	VNC        = "vnc"        // WebSocket of protocol [Plain]: RFB
	Screenshot = "screenshot" // image/png
	Log        = "log"        // text: the serial console so far, with the launcher's own lines
	State      = "state"      // launcherrpc/v1.State
	GuestInfo  = "guestinfo"  // GuestInfo of this package
)

// Plain is the WebSocket subprotocol of console and screen: binary messages are
// the bytes of the stream, both ways; messages' boundaries mean nothing. The close
// message says why the server ended it.
const Plain = "plain.kubevfio.io"

// Query parameters of [Log].
const (
	// QueryFollow "true" goes on until the guest ends.
	QueryFollow = "follow"
	// QueryTail gives only that many last lines.
	QueryTail = "tailLines"
)

// QueryDryRun with the value All, for PUT: everything is checked, nothing done.
const QueryDryRun = "dryRun"

// StartOptions is the body of [Start]; it may be left out.
type StartOptions struct {
	metav1.TypeMeta `json:",inline"`
}

// StopOptions is the body of [Stop]; it may be left out.
type StopOptions struct {
	metav1.TypeMeta `json:",inline"`
	// GracePeriodSeconds replaces the template's terminationGracePeriodSeconds; 0
	// switches the guest off at once.
	GracePeriodSeconds *int64 `json:"gracePeriodSeconds,omitempty"`
}

// RestartOptions is the body of [Restart]; it may be left out.
type RestartOptions struct {
	metav1.TypeMeta `json:",inline"`
	// GracePeriodSeconds is as in StopOptions.
	GracePeriodSeconds *int64 `json:"gracePeriodSeconds,omitempty"`
}
