package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// agentPort is the name of the virtio port on which hypervisors look for a guest's agent.
const agentPort = "org.qemu.guest_agent.0"

// runAgent answers the hypervisor's questions as qemu-guest-agent would (its protocol: qemu's qga/qapi-schema.json), a few of
// them. It returns when the guest has no port for it.
func runAgent(sys string) {
	names, err := filepath.Glob(filepath.Join(sys, "class/virtio-ports/*/name"))
	if err != nil {
		return
	}
	for _, path := range names {
		if readTrimmed(path) != agentPort {
			continue
		}
		f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(path))), os.O_RDWR, 0)
		if err != nil {
			return
		}
		for {
			// Without somebody at the other end a read ends at once.
			answerAll(f, f)
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// answerAll answers lines until the end of in.
func answerAll(in io.Reader, out io.Writer) {
	r := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		// 0xFF in front asks for a parser that begins anew.
		if i := bytes.LastIndexByte(line, 0xff); i >= 0 {
			line = line[i+1:]
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if _, err := out.Write(append(agentAnswer(line), '\n')); err != nil {
			return
		}
	}
}

// agentAnswer answers one request.
func agentAnswer(line []byte) []byte {
	type failure struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	}
	say := func(v any) []byte {
		b, err := json.Marshal(map[string]any{"return": v})
		if err != nil {
			return nil
		}
		return b
	}
	var request struct {
		Execute   string `json:"execute"`
		Arguments struct {
			ID int64 `json:"id"`
		} `json:"arguments"`
	}
	refuse := func(class, why string) []byte {
		b, err := json.Marshal(map[string]failure{"error": {class, why}})
		if err != nil {
			return nil
		}
		return b
	}
	if err := json.Unmarshal(line, &request); err != nil {
		return refuse("GenericError", err.Error())
	}
	switch request.Execute {
	case "guest-sync":
		return say(request.Arguments.ID)
	case "guest-sync-delimited":
		return append([]byte{0xff}, say(request.Arguments.ID)...)
	case "guest-ping":
		return say(struct{}{})
	case "guest-get-host-name":
		return say(map[string]string{"host-name": hostName()})
	case "guest-get-osinfo":
		return say(osInfo())
	case "guest-network-get-interfaces":
		return say(agentInterfaces())
	}
	return refuse("CommandNotFound", "the lab's guest does not know "+request.Execute)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" || name == "(none)" {
		return "lab-guest"
	}
	return name
}

func osInfo() map[string]string {
	info := map[string]string{"id": "lab-guest", "name": "Lab guest", "pretty-name": "Lab guest (initramfs)"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		info["kernel-release"] = unix.ByteSliceToString(u.Release[:])
		info["kernel-version"] = unix.ByteSliceToString(u.Version[:])
		info["machine"] = unix.ByteSliceToString(u.Machine[:])
	}
	return info
}

type agentAddress struct {
	Type   string `json:"ip-address-type"`
	IP     string `json:"ip-address"`
	Prefix int    `json:"prefix"`
}

type agentInterface struct {
	Name      string         `json:"name"`
	MAC       string         `json:"hardware-address,omitempty"`
	Addresses []agentAddress `json:"ip-addresses"`
}

func agentInterfaces() []agentInterface {
	list := []agentInterface{}
	links, err := net.Interfaces()
	if err != nil {
		return list
	}
	for _, l := range links {
		nic := agentInterface{Name: l.Name, MAC: l.HardwareAddr.String(), Addresses: []agentAddress{}}
		addresses, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			length, _ := n.Mask.Size()
			kind := "ipv4"
			if strings.Contains(n.IP.String(), ":") {
				kind = "ipv6"
			}
			nic.Addresses = append(nic.Addresses, agentAddress{kind, n.IP.String(), length})
		}
		list = append(list, nic)
	}
	return list
}
