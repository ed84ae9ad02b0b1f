package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// errNoReply means that no echo reply came in time.
var errNoReply = errors.New("no reply")

const (
	icmpEchoReply   = 0 // RFC 792
	icmpEchoRequest = 8
	icmpHeader      = 8
)

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// echoRequest makes an ICMP echo request.
func echoRequest(id, seq uint16, payload []byte) []byte {
	p := make([]byte, icmpHeader, icmpHeader+len(payload))
	p[0] = icmpEchoRequest
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], seq)
	p = append(p, payload...)
	binary.BigEndian.PutUint16(p[2:], checksum(p))
	return p
}

// parseEchoReply takes an IPv4 packet with its header; ok is false where it is no valid echo reply.
func parseEchoReply(packet []byte) (id, seq uint16, ok bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return 0, 0, false
	}
	head := int(packet[0]&15) * 4
	if head < 20 || len(packet) < head+icmpHeader {
		return 0, 0, false
	}
	icmp := packet[head:]
	if icmp[0] != icmpEchoReply || icmp[1] != 0 || checksum(icmp) != 0 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(icmp[4:]), binary.BigEndian.Uint16(icmp[6:]), true
}

// pinger sends ICMP echo requests to one peer.
type pinger struct {
	fd   int
	id   uint16
	seq  uint16
	peer unix.SockaddrInet4
}

func newPinger(peer netip.Addr) (*pinger, error) {
	if !peer.Is4() {
		return nil, fmt.Errorf("ping %s: only IPv4", peer)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	a := peer.As4()
	return &pinger{fd: fd, id: binary.BigEndian.Uint16(a[2:]), peer: unix.SockaddrInet4{Addr: a}}, nil
}

func (p *pinger) close() { _ = unix.Close(p.fd) }

// ping sends one request and waits for its reply; it takes the whole second unless an error ends it sooner, so that a loop
// over it pings once a second.
func (p *pinger) ping(interval time.Duration) (time.Duration, error) {
	p.seq++
	start := time.Now()
	if err := unix.Sendto(p.fd, echoRequest(p.id, p.seq, make([]byte, 48)), 0, &p.peer); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	buf := make([]byte, 2048)
	for {
		left := interval - time.Since(start)
		if left <= 0 {
			return 0, errNoReply
		}
		timeout := unix.NsecToTimeval(left.Nanoseconds() + 1000)
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		if id, seq, ok := parseEchoReply(buf[:n]); ok && id == p.id && seq == p.seq {
			rtt := time.Since(start)
			time.Sleep(interval - rtt)
			return rtt, nil
		}
	}
}
