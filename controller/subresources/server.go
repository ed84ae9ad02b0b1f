package subresources

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// Server serves a handler by TLS until its context ends.
type Server struct {
	// Listener is taken over.
	Listener net.Listener
	// Auth and Handler: the second is behind the first.
	Auth    *Auth
	Handler http.Handler
	// GetCertificate is asked for every connection, so that it may change.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// NeedLeaderElection says that every replica serves (controller-runtime).
func (s *Server) NeedLeaderElection() bool { return false }

// Start serves. Streams end with the context.
func (s *Server) Start(ctx context.Context) error {
	log := klog.FromContext(ctx).WithName("api")
	if err := s.Auth.Start(ctx); err != nil {
		log.Error(err, "the cluster's authentication settings cannot be read yet; until then nobody is let in")
	}
	server := &http.Server{
		Handler: s.Auth.Chain(s.Handler),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Looked at by the authenticator, which knows all authorities.
			ClientAuth:     tls.RequestClientCert,
			GetCertificate: s.GetCertificate,
			NextProtos:     []string{"h2", "http/1.1"},
		},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(end); err != nil {
			log.V(2).Info("connections were cut", "err", errors.Join(err, server.Close()))
		}
	})
	defer stop()
	log.Info("serving", "address", s.Listener.Addr().String())
	if err := server.ServeTLS(s.Listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// PodLogs reads logs from the API server; it is a [Logs].
type PodLogs struct{ Client kubernetes.Interface }

// Open implements [Logs].
func (p PodLogs) Open(ctx context.Context, pod *corev1.Pod, o *corev1.PodLogOptions) (io.ReadCloser, error) {
	return p.Client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, o).Stream(ctx)
}
