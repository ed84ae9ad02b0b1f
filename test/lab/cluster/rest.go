package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// rest is the little that the daemon itself needs of a Kubernetes client.
type rest struct {
	http *http.Client
	base string
}

func newREST(base string, caPEM []byte, id identity) (*rest, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, fmt.Errorf("no certificate in the authority's PEM")
	}
	cert, err := tls.X509KeyPair(id.cert, id.key)
	if err != nil {
		return nil, err
	}
	return &rest{base: base, http: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}},
	}}, nil
}

// statusError is an answer other than 2xx.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("HTTP %d: %s", e.code, strings.TrimSpace(e.body))
}

// do sends in (unless nil) as JSON and decodes the answer into out (unless nil).
func (r *rest) do(ctx context.Context, method, path, contentType string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %w", method, path, &statusError{resp.StatusCode, string(data)})
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (r *rest) get(ctx context.Context, path string, out any) error {
	return r.do(ctx, http.MethodGet, path, "", nil, out)
}

func (r *rest) create(ctx context.Context, path string, obj any) error {
	return r.do(ctx, http.MethodPost, path, "application/json", obj, nil)
}

func (r *rest) patch(ctx context.Context, path string, obj any) error {
	return r.do(ctx, http.MethodPatch, path, "application/merge-patch+json", obj, nil)
}

// poll calls f until it returns nil or ctx ends; the last error says why it did not.
func poll(ctx context.Context, every time.Duration, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-time.After(every):
		}
	}
}
