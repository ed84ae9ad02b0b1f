//go:build libvirt_dlopen && cgo

package virt

import (
	"fmt"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// agentTimeout is how long one question to the guest's agent may take, in seconds.
const agentTimeout = 5

// Info asks the guest's agent for what it tells, once and only when somebody wants
// to know: libvirt has to parse what the guest says. The error is [ErrNotSupported]
// without a channel, [ErrAgent] without an answer.
func (g *Guest) Info() (launcherrpcv1.GuestInfo, error) {
	var info launcherrpcv1.GuestInfo
	if err := g.d.AgentSetResponseTimeout(agentTimeout, 0); err != nil {
		return info, fmt.Errorf("ask the guest's agent: %w", plain(err))
	}
	// No types: all that this agent knows, without an error for the others.
	said, err := g.d.GetGuestInfo(0, 0)
	if err != nil {
		return info, fmt.Errorf("ask the guest's agent: %w", plain(err))
	}
	info.Hostname = said.Hostname
	if os := said.OS; os != nil {
		info.OS = &launcherrpcv1.GuestOS{
			ID: os.ID, Name: os.Name, PrettyName: os.PrettyName, Version: os.Version, VersionID: os.VersionID,
			KernelRelease: os.KernelRelease, KernelVersion: os.KernelVersion, Machine: os.Machine,
		}
	}
	if said.TimeZone != nil {
		info.Timezone = said.TimeZone.Name
	}
	for _, u := range said.Users {
		user := launcherrpcv1.GuestUser{Name: u.Name}
		if u.LoginTimeSet {
			// Milliseconds.
			at := time.UnixMilli(int64(u.LoginTime)).UTC() //nolint:gosec // the guest's own words, wrong or not
			user.LoginTime = &at
		}
		info.Users = append(info.Users, user)
	}
	for _, i := range said.Interfaces {
		nic := launcherrpcv1.GuestInterface{Name: i.Name, MAC: i.Hwaddr}
		for _, a := range i.Addrs {
			nic.Addresses = append(nic.Addresses, fmt.Sprintf("%s/%d", a.Addr, a.Prefix))
		}
		info.Interfaces = append(info.Interfaces, nic)
	}
	for _, f := range said.FileSystems {
		info.FileSystems = append(info.FileSystems, launcherrpcv1.GuestFileSystem{
			MountPoint: f.MountPoint, Name: f.Name, Type: f.FSType, TotalBytes: f.TotalBytes, UsedBytes: f.UsedBytes,
		})
	}
	return info, nil
}
