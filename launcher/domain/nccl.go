package domain

// nccl writes the NCCL topology file when the spec asks for it.
func (b *builder) nccl() error {
	if !b.spec.Devices.NCCLTopology {
		return nil
	}
	return hostErrorf("spec.domain.devices.ncclTopology", "is not built yet")
}
