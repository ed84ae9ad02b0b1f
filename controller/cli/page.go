package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/controller/page"
)

// ErrPage is the class of errors about a page that the cluster does not serve.
var ErrPage = errors.New("the page cannot be had")

// errNotServed: the API server does not know the page.
var errNotServed = errors.New("the controller's API is not there or not ready")

func (s *session) page() *cobra.Command {
	var port uint16
	c := &cobra.Command{
		Use:   "page",
		Short: "Show nodes, devices and machines in the browser",
		Long: "Open a port of this machine's loopback address for the controller's page: nodes as topology drawings, devices by holder and\n" +
			"health, machines with their phase and console log. It is read-only and made with your own rights: the port forwards to the\n" +
			"API server with your credentials, only what the page needs, and only below a path that cannot be guessed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := s.cluster()
			if err != nil {
				return err
			}
			secret := "/" + rand.Text()
			proxy, err := newPageProxy(cl.config, secret)
			if err != nil {
				return err
			}
			if err := proxy.probe(cmd.Context()); err != nil {
				if !errors.Is(err, errNotServed) {
					return err
				}
				s.note("the controller's API does not serve the page here: it is made by this command, with your own rights")
				if proxy.local, err = page.New(&live{client: cl.client, note: s.note}, time.Now); err != nil {
					return err
				}
			}
			l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return fmt.Errorf("open a port: %w", err)
			}
			proxy.host = l.Addr().String()
			fmt.Fprintf(s.out, "http://%s%s%s/\n", proxy.host, secret, page.Path)
			fmt.Fprintln(s.err, "open this address in a browser of this machine; Ctrl-C ends it")
			server := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
			stop := context.AfterFunc(cmd.Context(), func() {
				if err := server.Close(); err != nil {
					fmt.Fprintln(s.err, "close the port:", err)
				}
			})
			defer stop()
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
	c.Flags().Uint16Var(&port, "port", 0, "port to open; any free one when 0")
	return c
}

// logPath is the only thing beside the page that the page asks for.
const logPath = `^/api/v1/namespaces/[a-z0-9.-]+/pods/[a-z0-9.-]+/log$`

// pageProxy forwards the page's requests with the caller's credentials.
type pageProxy struct {
	secret string
	// host is the only one that a browser may have been told: another name that
	// resolves to this address is an attempt to read the page from elsewhere.
	host    string
	logs    *regexp.Regexp
	server  *url.URL
	forward *httputil.ReverseProxy
	// local serves the page where the cluster does not; nil where it does.
	local http.Handler
}

func newPageProxy(cfg *rest.Config, secret string) (*pageProxy, error) {
	server, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	p := &pageProxy{secret: secret, server: server, logs: regexp.MustCompile(logPath)}
	p.forward = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, secret)
			r.Out.URL.RawPath = ""
			r.SetURL(server)
			// The transport has the credentials; a browser has none to give.
			for _, h := range []string{"Authorization", "Cookie", "Origin", "Referer"} {
				r.Out.Header.Del(h)
			}
			for h := range r.Out.Header {
				if strings.HasPrefix(h, "Impersonate-") || strings.HasPrefix(h, "X-Remote-") {
					r.Out.Header.Del(h)
				}
			}
		},
	}
	return p, nil
}

// ServeHTTP implements http.Handler.
func (p *pageProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ours := strings.CutPrefix(r.URL.Path, p.secret)
	switch {
	case r.Host != p.host || !ours:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "the page is read-only", http.StatusMethodNotAllowed)
	case strings.Contains(path, ".."):
		http.NotFound(w, r)
	case p.local != nil && strings.HasPrefix(path, page.Path+"/"):
		http.StripPrefix(p.secret+page.Path, p.local).ServeHTTP(w, r)
	case path == page.Path || strings.HasPrefix(path, page.Path+"/"), p.logs.MatchString(path):
		p.forward.ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// probe asks for the page once, so that what is wrong is said here and not in the
// browser.
func (p *pageProxy) probe(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.server.JoinPath(page.Path+"/").String(), nil)
	if err != nil {
		return err
	}
	resp, err := p.forward.Transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusForbidden:
		return fmt.Errorf("%w: you may not see it: ask for the ClusterRole kubevfio-page", ErrPage)
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: your credentials were refused: log in again", ErrPage)
	case http.StatusNotFound, http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %w: %s", ErrPage, errNotServed, resp.Status)
	}
	return fmt.Errorf("%w: the API server answers %s", ErrPage, resp.Status)
}

// live is a [page.Source] with the caller's rights: what these do not allow is left
// out, and said once.
type live struct {
	client client.Client
	note   func(string)
	said   bool
}

// Objects implements [page.Source].
func (l *live) Objects(ctx context.Context) (page.Objects, error) {
	objects, forbidden, err := page.Read(ctx, l.client)
	if len(forbidden) > 0 && !l.said {
		l.said = true
		l.note("you may not list " + strings.Join(forbidden, ", ") + ": the page shows the rest")
	}
	return objects, err
}
