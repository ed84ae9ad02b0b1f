// Package agentsocket serves the agent's gRPC API (api/agentrpc/v1) to launchers
// in pods.
//
// It is for package agent. Every call is judged by who the kernel says is at the
// other end; the request never says it. Every refusal carries a reason that a
// program can read and a sentence that a person can act on.
package agentsocket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	"github.com/kubevfio/kubevfio/deviceplugin/peer"
)

// Pod is what the server needs to know of a caller's pod.
type Pod struct {
	Namespace, Name string
	// LockBase is the memory and hugepages limit of the caller's container in
	// bytes, 0 when it has none.
	LockBase uint64
	// Units that the pod holds, by leader's address.
	Units []string
}

// Pods finds a pod by UID; containerID may be empty or not known yet.
type Pods interface {
	// Pod gives ErrUnknownPod for a UID that the node does not run.
	Pod(ctx context.Context, uid, containerID string) (Pod, error)
}

// ErrUnknownPod: no such pod is known on this node (yet).
var ErrUnknownPod = errors.New("no such pod on this node")

// VF says where a virtual function hangs.
type VF struct {
	// Unit that the function belongs to.
	Unit string
	// PF is the physical function's network device, empty without one.
	PF string
	// Index of the virtual function on it.
	Index int
}

// VFs finds virtual functions and sets their properties.
type VFs interface {
	// FindVF gives ErrNoVF when the address is no virtual function of the host.
	FindVF(address string) (VF, error)
	// SetVF applies the fields of r that are set.
	SetVF(ctx context.Context, vf VF, r *agentrpc.ConfigureVFRequest) error
}

// ErrNoVF: not a virtual function.
var ErrNoVF = errors.New("not a virtual function of this node")

// ErrNotSupported: kernel or driver cannot do it.
var ErrNotSupported = errors.New("not supported")

// Config of a Server; all fields but Proc, Observe and Log are required.
type Config struct {
	Version, Node string
	// Dir is the folder of the socket, Name the socket's name in it.
	Dir, Name string
	// Proc is where the host's processes are, normally /proc.
	Proc string
	Pods Pods
	VFs  VFs
	// IOMMUFDName is the name of the socket for /dev/iommu, in the same folder;
	// empty serves none.
	IOMMUFDName string
	// OpenIOMMUFD opens /dev/iommu for a launcher; ErrNotSupported when the kernel
	// has none.
	OpenIOMMUFD func() (*os.File, error)
	// Observe hears of each call, for metrics.
	Observe func(method string, d time.Duration, err error)
	Log     *slog.Logger
}

// Server serves the API.
type Server struct {
	agentrpc.UnimplementedAgentServer
	cfg Config
}

// New builds a server.
func New(cfg Config) *Server {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	return &Server{cfg: cfg}
}

// listen makes a socket in the folder. It is made beside its place and moved
// there, so that clients find the old one or the new one, never none that
// listens.
func (s *Server) listen(name string) (*net.UnixListener, error) {
	path := filepath.Join(s.cfg.Dir, name)
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("agent socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("agent socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	// Everybody in a pod that has the mount may connect; each call is judged.
	if err := os.Chmod(tmp, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("agent socket: %w", err), l.Close())
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, errors.Join(fmt.Errorf("agent socket: %w", err), l.Close())
	}
	return l, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("make agent socket's folder: %w", err)
	}
	l, err := s.listen(s.cfg.Name)
	if err != nil {
		return err
	}
	if s.cfg.IOMMUFDName != "" {
		fds, err := s.listen(s.cfg.IOMMUFDName)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		ended := make(chan struct{})
		go func() { defer close(ended); s.serveIOMMUFD(ctx, fds) }()
		defer func() { _ = fds.Close(); <-ended }()
	}
	g := grpc.NewServer(
		grpc.Creds(&peerCredentials{proc: s.cfg.Proc, log: s.cfg.Log}),
		grpc.MaxRecvMsgSize(64<<10),
		grpc.MaxConcurrentStreams(16),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.UnaryInterceptor(s.intercept),
	)
	agentrpc.RegisterAgentServer(g, s)
	failed := make(chan error, 1)
	go func() { failed <- g.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("agent socket: %w", err)
	case <-ctx.Done():
		g.Stop()
		return errors.Join(ctx.Err(), <-failed) // Serve answers nil after Stop
	}
}

func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := next(ctx, req)
	s.cfg.Observe(info.FullMethod, time.Since(start), err)
	if err != nil {
		p, _ := caller(ctx)
		var uid string
		if p != nil {
			uid = p.PodUID
		}
		s.cfg.Log.Info("refused a launcher's call", "method", info.FullMethod, "podUID", uid, "err", err)
	}
	return resp, err
}

// refuse makes a refusal.
func refuse(code codes.Code, reason agentrpc.Reason, subject, format string, args ...any) error {
	st := status.New(code, fmt.Sprintf(format, args...))
	if d, err := st.WithDetails(&agentrpc.Refusal{Reason: reason, Subject: subject}); err == nil {
		st = d
	}
	return st.Err()
}

// caller is the identified process of the connection.
func caller(ctx context.Context) (*peer.Peer, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_UNKNOWN_PEER, "", "the connection has no peer")
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok {
		return nil, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_UNKNOWN_PEER, "", "the connection has no credentials")
	}
	if info.err != nil {
		return nil, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_UNKNOWN_PEER, "", "cannot tell which pod calls: %v", info.err)
	}
	return info.peer, nil
}

// pod is the caller and its pod.
func (s *Server) pod(ctx context.Context) (*peer.Peer, Pod, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, Pod{}, err
	}
	pod, err := s.podOf(ctx, p)
	if err != nil {
		return nil, Pod{}, err
	}
	return p, pod, nil
}

func (s *Server) podOf(ctx context.Context, p *peer.Peer) (Pod, error) {
	pod, err := s.cfg.Pods.Pod(ctx, p.PodUID, p.ContainerID)
	switch {
	case errors.Is(err, ErrUnknownPod):
		return Pod{}, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_UNKNOWN_PEER, p.PodUID, "pod %s: %v", p.PodUID, err)
	case err != nil:
		return Pod{}, refuse(codes.Unavailable, agentrpc.Reason_REASON_NOT_READY, p.PodUID, "pod %s: %v", p.PodUID, err)
	}
	slices.Sort(pod.Units)
	return pod, nil
}

// GetInfo implements the API.
func (s *Server) GetInfo(ctx context.Context, _ *agentrpc.GetInfoRequest) (*agentrpc.GetInfoResponse, error) {
	p, pod, err := s.pod(ctx)
	if err != nil {
		return nil, err
	}
	return &agentrpc.GetInfoResponse{
		AgentVersion: s.cfg.Version, Node: s.cfg.Node, PodUid: p.PodUID, ContainerId: p.ContainerID,
		Devices: pod.Units, MemoryLockMax: LockLimit(pod.LockBase, 0),
	}, nil
}

// authInfo carries the peer; an unknown one is refused per call, so that the
// caller gets a sentence instead of a broken connection.
type authInfo struct {
	credentials.CommonAuthInfo
	peer *peer.Peer
	err  error
}

// AuthType implements credentials.AuthInfo.
func (authInfo) AuthType() string { return "unix-peer" }

// peerCredentials identifies the process at the other end when it connects.
type peerCredentials struct {
	proc string
	log  *slog.Logger
}

// ClientHandshake implements credentials.TransportCredentials; servers have none.
func (*peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for servers only")
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := authInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		info.err = peer.ErrSocket
		return conn, info, nil
	}
	info.peer, info.err = peer.Identify(u, c.proc)
	if info.err != nil {
		return conn, info, nil //nolint:nilerr // info carries it: the interceptor refuses each call with it
	}
	return &closer{Conn: conn, peer: info.peer}, info, nil
}

// Info implements credentials.TransportCredentials.
func (*peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone implements credentials.TransportCredentials.
func (c *peerCredentials) Clone() credentials.TransportCredentials { o := *c; return &o }

// OverrideServerName implements credentials.TransportCredentials.
func (*peerCredentials) OverrideServerName(string) error { return nil }

// closer gives the peer's handle back with the connection.
type closer struct {
	net.Conn
	peer *peer.Peer
}

// Close implements net.Conn.
func (c *closer) Close() error {
	c.peer.Close()
	return c.Conn.Close()
}
