package page_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/kubevfio/kubevfio/controller/hardware/hardwaretest"
	"github.com/kubevfio/kubevfio/controller/page"
)

// prefix is where the aggregated API has the page.
const prefix = page.Path

// token is what the made-up authenticator knows.
const token = "Bearer made-up"

// browser finds Chromium, and installs Debian's package where it may.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil || os.Getuid() != 0 {
		t.Fatal("there is no chromium: install it (Debian: apt-get install chromium)")
	}
	t.Log("there is no chromium: apt-get install chromium")
	cmd := exec.Command("apt-get", "install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core")
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install chromium: %v\n%s", err, out)
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// cluster is the source of a test's page.
type cluster struct {
	mu      sync.Mutex
	objects page.Objects
}

func (c *cluster) Objects(context.Context) (page.Objects, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.objects, nil
}

// bootText is a guest's console: colours, a carriage return, something that moves the
// cursor, something that looks like HTML.
const bootText = "\x1b[1;32m[  OK  ]\x1b[0m Started sshd\r\n\x1b[2Jlogin: <script>bad()</script>\n"

// serve starts a server of n nodes.
func serve(t *testing.T, n int) (*httptest.Server, *cluster) {
	t.Helper()
	objects, err := hardwaretest.New(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{objects: page.Objects(*objects)}
	for i := range c.objects.Instances {
		if vmi := &c.objects.Instances[i]; vmi.Name == "too-big" {
			vmi.Status.Message = `<img src=x onerror=bad()> ` + vmi.Status.Message
		}
	}
	h, err := page.New(c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	kubernetes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/vms/pods/trainer-0-") && strings.HasSuffix(r.URL.Path, "/log"):
			_, _ = w.Write([]byte(bootText))
		case strings.HasSuffix(r.URL.Path, "/log"):
			http.Error(w, `{"message":"forbidden"}`, http.StatusForbidden)
		default:
			http.NotFound(w, r)
		}
	})
	inner := page.Under(prefix, h, kubernetes)
	// Stands for the API server's authentication and authorization.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server, c
}

// tab is a browser's tab that fails the test when a script does.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func open(t *testing.T, url string, width, height int64) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(browser(t)), chromedp.NoSandbox, chromedp.WSURLReadTimeout(time.Minute), chromedp.Flag("force-color-profile", "srgb"))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("script: %s", e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			// The console's refusal is a test's own.
			if e.Entry.Level == log.EntryLevelError && !strings.HasSuffix(strings.Split(e.Entry.URL, "?")[0], "/log") {
				t.Errorf("browser: %s %s", e.Entry.Text, e.Entry.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err == nil {
		_, err = chromedp.Call(ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Authorization": token}})
	}
	if err == nil {
		_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	}
	if err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.EmulateViewport(width, height), chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(`html[data-drawn] .node`)))
	return b
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// js evaluates an expression.
func js[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to be true.
func (b *tab) until(expression string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression)); err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
}

// scheme makes the browser's user one who likes it light or dark.
func (b *tab) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// shot saves what is to be seen.
func (b *tab) shot(name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	dir := filepath.Join("..", "..", "out", "page")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
