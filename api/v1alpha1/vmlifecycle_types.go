package v1alpha1

import corev1 "k8s.io/api/core/v1"

// EvictionStrategy is what happens to a guest when its node is drained.
//
// +kubebuilder:validation:Enum=ColdMove;None
type EvictionStrategy string

// The eviction strategies.
const (
	// EvictionColdMove: a pod on another node holds its devices before the guest
	// is shut down here. It is the default.
	EvictionColdMove EvictionStrategy = "ColdMove"
	// EvictionNone: the guest is shut down with its pod; the run strategy decides
	// what follows.
	EvictionNone EvictionStrategy = "None"
)

// Probe asks a program in the guest through the interface on the pod network.
// Exactly one of tcpSocket and httpGet is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.tcpSocket) != has(self.httpGet)",message="wants exactly one of tcpSocket and httpGet"
type Probe struct {
	// TCPSocket: a connection to the port is success.
	// +optional
	TCPSocket *ProbeTCPSocket `json:"tcpSocket,omitempty"`
	// HTTPGet: an answer from 200 to 399 is success.
	// +optional
	HTTPGet *ProbeHTTPGet `json:"httpGet,omitempty"`
	// InitialDelaySeconds after the guest's start, 0 when absent.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InitialDelaySeconds int32 `json:"initialDelaySeconds,omitempty"`
	// TimeoutSeconds of one try, 1 when absent.
	// +optional
	// +kubebuilder:validation:Minimum=1
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
	// PeriodSeconds from try to try, 10 when absent.
	// +optional
	// +kubebuilder:validation:Minimum=1
	PeriodSeconds int32 `json:"periodSeconds,omitempty"`
	// SuccessThreshold is how many tries must succeed in a row, 1 when absent.
	// +optional
	// +kubebuilder:validation:Minimum=1
	SuccessThreshold int32 `json:"successThreshold,omitempty"`
	// FailureThreshold is how many tries must fail in a row, 3 when absent.
	// +optional
	// +kubebuilder:validation:Minimum=1
	FailureThreshold int32 `json:"failureThreshold,omitempty"`
}

// ProbeTCPSocket is a connection to the guest.
type ProbeTCPSocket struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}

// ProbeHTTPGet is a request to the guest.
type ProbeHTTPGet struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// Path, "/" when absent.
	// +optional
	Path string `json:"path,omitempty"`
	// Scheme is HTTP (default) or HTTPS; certificates are not checked.
	// +optional
	// +kubebuilder:validation:Enum=HTTP;HTTPS
	Scheme corev1.URIScheme `json:"scheme,omitempty"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	HTTPHeaders []corev1.HTTPHeader `json:"httpHeaders,omitempty"`
}

// AccessCredential lets somebody into the guest.
//
// +kubebuilder:validation:XValidation:rule="has(self.sshPublicKey)",message="sshPublicKey is not set; it is the only kind of access credential"
type AccessCredential struct {
	// SSHPublicKey for the guest's default user.
	// +optional
	SSHPublicKey *SSHPublicKeyAccessCredential `json:"sshPublicKey,omitempty"`
}

// SSHPublicKeyAccessCredential are SSH public keys that cloud-init takes over when
// the guest first boots.
type SSHPublicKeyAccessCredential struct {
	Source            SSHPublicKeySource            `json:"source"`
	PropagationMethod SSHPublicKeyPropagationMethod `json:"propagationMethod"`
}

// SSHPublicKeySource is where the keys are.
type SSHPublicKeySource struct {
	// Secret in the same namespace; each of its values has keys, one a line.
	Secret *AccessCredentialSecret `json:"secret"`
}

// AccessCredentialSecret names a Secret.
type AccessCredentialSecret struct {
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`
	SecretName string `json:"secretName"`
}

// SSHPublicKeyPropagationMethod is how the keys reach the guest: in the metadata of
// a volume of that kind, which the spec must have. Exactly one is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.noCloud) != has(self.configDrive)",message="wants exactly one of noCloud and configDrive"
type SSHPublicKeyPropagationMethod struct {
	// +optional
	NoCloud *SSHPublicKeyByCloudInit `json:"noCloud,omitempty"`
	// +optional
	ConfigDrive *SSHPublicKeyByCloudInit `json:"configDrive,omitempty"`
}

// SSHPublicKeyByCloudInit has no settings.
type SSHPublicKeyByCloudInit struct{}
