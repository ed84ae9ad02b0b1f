package agentrpcv1

// First bytes of an answer on the socket for /dev/iommu, which is beside the one
// for gRPC: a connection gets one answer.
const (
	// IOMMUFDRefused: a google.rpc.Status follows, with a [Refusal] in its details.
	IOMMUFDRefused byte = 0
	// IOMMUFDGiven: the file comes with this byte as ancillary data (SCM_RIGHTS).
	IOMMUFDGiven byte = 1
)
