package page

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// ErrSource is the class of errors about objects that cannot be listed.
var ErrSource = errors.New("cannot read the cluster")

// Path is where the controller's aggregated API has the page. RBAC knows it as the
// resource "page" of that group: list for the page itself, get for what is below.
const Path = "/apis/subresources." + v1alpha1.Group + "/" + v1alpha1.Version + "/page"

//go:embed static
var static embed.FS

// Source lists objects, from a cache: it is asked at most once per [Freshness].
type Source interface {
	Objects(ctx context.Context) (Objects, error)
}

// Freshness is how old the model may be: many browsers ask, one answer is made.
const Freshness = 2 * time.Second

// patience bounds how long a source may take.
const patience = 10 * time.Second

// Handler serves the page.
type Handler struct {
	source Source
	now    func() time.Time
	files  fs.FS

	mu      sync.Mutex
	made    time.Time
	objects Objects
	plain   []byte
	packed  []byte
	etag    string
}

// New makes a handler.
func New(source Source, now func() time.Time) (*Handler, error) {
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, fmt.Errorf("open the embedded page: %w", err)
	}
	return &Handler{source: source, now: now, files: files}, nil
}

// Under gives requests below prefix to the page and all others to next. Put it inside
// the chain of handlers that authenticates and authorizes; prefix has no slash at its
// end.
func Under(prefix string, page, next http.Handler) http.Handler {
	below := http.StripPrefix(prefix, page)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == prefix || strings.HasPrefix(r.URL.Path, prefix+"/") {
			below.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// types are the content types of what is served.
func types(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/json"
}

// ServeHTTP implements http.Handler: "/" is the page, "/model.json" the model,
// "/nodes/NAME.svg" a drawing.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	// Nothing from elsewhere, no inline script: names in the model are other people's.
	head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-cache")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "the page is read-only", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case r.URL.Path == "":
		// Relative, so that a proxy's prefix stays: the browser resolves it.
		head.Set("Location", path.Base(r.RequestURI)+"/")
		if at, _, ok := strings.Cut(r.RequestURI, "?"); ok {
			head.Set("Location", path.Base(at)+"/")
		}
		w.WriteHeader(http.StatusMovedPermanently)
	case name == "":
		h.file(w, r, "index.html")
	case name == "model.json":
		h.model(w, r)
	case strings.HasPrefix(name, "nodes/") && strings.HasSuffix(name, ".svg"):
		h.drawing(w, r, strings.TrimSuffix(strings.TrimPrefix(name, "nodes/"), ".svg"))
	default:
		h.file(w, r, name)
	}
}

func (h *Handler) file(w http.ResponseWriter, r *http.Request, name string) {
	text, err := fs.ReadFile(h.files, name)
	if err != nil {
		http.Error(w, "there is no "+strconv.Quote(name)+" on this page", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", types(name))
	sum := sha256.Sum256(text)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
}

// current makes the model anew when it is too old. Errors are of class [ErrSource].
func (h *Handler) current(ctx context.Context) error {
	if now := h.now(); !h.made.IsZero() && now.Sub(h.made) < Freshness {
		return nil
	}
	// A cache that is not filled yet is waited for, but not for ever: others wait too.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	objects, err := h.source.Objects(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	plain, err := json.Marshal(Build(objects))
	if err != nil {
		return fmt.Errorf("encode the model: %w", err)
	}
	h.made, h.objects = h.now(), objects
	sum := sha256.Sum256(plain)
	etag := `"` + hex.EncodeToString(sum[:12]) + `"`
	if etag == h.etag {
		return nil
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(plain)
	if err := errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("compress the model: %w", err)
	}
	h.plain, h.packed, h.etag = plain, packed.Bytes(), etag
	return nil
}

func (h *Handler) model(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	err := h.current(r.Context())
	plain, packed, etag := h.plain, h.packed, h.etag
	h.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	head := w.Header()
	head.Set("Content-Type", types("model.json"))
	head.Set("Vary", "Accept-Encoding")
	head.Set("ETag", etag)
	body := plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		// One tag for both forms: they are the same to who asks again. ServeContent
		// does not set the length of an encoded body.
		head.Set("Content-Encoding", "gzip")
		head.Set("Content-Length", strconv.Itoa(len(packed)))
		body = packed
	}
	if r.Header.Get("If-None-Match") == etag {
		head.Del("Content-Length")
		head.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body) // who went away needs no answer
}

func (h *Handler) drawing(w http.ResponseWriter, r *http.Request, node string) {
	h.mu.Lock()
	err := h.current(r.Context())
	objects := h.objects
	h.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	for i := range objects.Inventories {
		inv := &objects.Inventories[i]
		if inv.Name != node {
			continue
		}
		var svg bytes.Buffer
		if err := draw.SVG(&svg, hardware.Boxes(inv, hardware.Units(inv, hardware.NewHolders(objects.Pods, objects.Usages)), true)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", types(".svg"))
		// Its style sheet is inside.
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		_, _ = w.Write(svg.Bytes()) // who went away needs no answer
		return
	}
	http.Error(w, "there is no inventory of node "+strconv.Quote(node), http.StatusNotFound)
}
