package page_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/controller/hardware/hardwaretest"
	"github.com/kubevfio/kubevfio/controller/page"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// fake lists a made-up cluster.
type fake struct {
	objects page.Objects
	err     error
	asked   int
}

func (f *fake) Objects(context.Context) (page.Objects, error) {
	f.asked++
	return f.objects, f.err
}

func cluster(t *testing.T, n int) *fake {
	t.Helper()
	c, err := hardwaretest.New(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	return &fake{objects: page.Objects(*c)}
}

func TestBuild(t *testing.T) {
	o := cluster(t, 4).objects
	m := page.Build(o)
	for _, list := range []func(){
		func() { slices.Reverse(o.Nodes) }, func() { slices.Reverse(o.Inventories) }, func() { slices.Reverse(o.Machines) },
		func() { slices.Reverse(o.Instances) }, func() { slices.Reverse(o.Pods) },
	} {
		list()
	}
	if d := cmp.Diff(m, page.Build(o)); d != "" {
		t.Errorf("the order of lists changes the model:\n%s", d)
	}
	for _, n := range m.Nodes {
		seen := map[int]int{}
		var walk func(*page.Place)
		walk = func(p *page.Place) {
			if p.Kind.Device() {
				t.Errorf("a device is a place: %+v", p)
			}
			for _, u := range p.Units {
				seen[u]++
			}
			for _, c := range p.Inner {
				walk(c)
			}
		}
		walk(n.Tree)
		if len(seen) != len(n.Units) || len(n.Units) != 73 {
			t.Errorf("%s: %d of %d units have a place", n.Name, len(seen), len(n.Units))
		}
	}
	type flags struct{ NotReady, Cordoned bool }
	got := map[string]flags{}
	for _, n := range m.Nodes {
		got[n.Name] = flags{n.NotReady, n.Cordoned}
	}
	want := map[string]flags{"gpu-01": {}, "gpu-02": {}, "gpu-03": {}, "gpu-04": {true, true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("nodes (-want +got):\n%s", d)
	}
	// Who may not see nodes is not told that all are down; a node that is gone is.
	o.Nodes = nil
	if n := page.Build(o).Nodes[3]; n.NotReady || n.Cordoned {
		t.Errorf("without nodes: %v", n.Name)
	}
	o.Nodes = []corev1.Node{{}}
	if n := page.Build(o).Nodes[0]; !n.NotReady {
		t.Errorf("%s is gone and looks ready", n.Name)
	}
	sick := m.Nodes[1].Units[slices.IndexFunc(m.Nodes[1].Units, func(u page.Unit) bool { return u.State == "n" })]
	if sick.Holder != nil || !strings.Contains(sick.Problem, "reset failed") || m.Kinds[sick.Kind] != (page.Kind{Class: draw.GPU, Product: "H200 SXM", Resource: hardwaretest.GPU}) {
		t.Errorf("GPU in trouble: %+v of %+v", sick, m.Kinds[sick.Kind])
	}
}

func TestMachines(t *testing.T) {
	m := page.Build(cluster(t, 1).objects)
	for i := range m.Machines {
		m.Machines[i].Hue = 0
	}
	want := []page.Machine{
		{Namespace: "lab", Name: "broken", Owned: true, Status: "CrashLoopBackOff", Level: "bad", Message: "GuestPanicked: no root file system"},
		{Namespace: "lab", Name: "spare", Owned: true, Status: "Stopped", Level: "off"},
		{Namespace: "lab", Name: "too-big", Owned: true, Status: "ErrorUnschedulable", Phase: "Scheduling", Level: "bad", Message: "0/3 nodes are available: 3 no set of 8 example.com/h200 is free"},
		{
			Namespace: "vms", Name: "trainer-0", Owned: true, Status: "Running", Phase: "Running", Level: "ok", Node: "gpu-01", Pod: "trainer-0-1a2b3c4d5e",
			Devices: "3/3", Alignment: "switch", IP: "10.42.0.0",
		},
	}
	if d := cmp.Diff(want, m.Machines); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	held := 0
	for _, u := range m.Nodes[0].Units {
		if u.Holder != nil && m.Holders[*u.Holder].Machine == "vms/trainer-0" {
			held++
		}
	}
	if held != 3 {
		t.Errorf("the machine's colour is on %d devices, it holds 3", held)
	}
}

// Nothing at all is a page, too.
func TestEmpty(t *testing.T) {
	b, err := json.Marshal(page.Build(page.Objects{}))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(`{"nodes":[],"machines":[],"holders":[],"kinds":[]}`, string(b)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestSize holds what 50 device-rich nodes may cost a browser.
func TestSize(t *testing.T) {
	h, err := page.New(cluster(t, 50), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	plain, packed := get(t, h, "/model.json", nil), get(t, h, "/model.json", map[string]string{"Accept-Encoding": "gzip"})
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	size := packed.Header().Get("Content-Length")
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(plain.Body.String(), string(text)); d != "" {
		t.Errorf("the compressed model is another one:\n%s", d)
	}
	t.Logf("50 nodes of 73 units: %d bytes, %s compressed", len(text), size)
	if len(text) > 640<<10 || len(size) > 5 {
		t.Errorf("%d bytes, %s compressed; want at most 640 KiB and below 100,000", len(text), size)
	}
}

func get(t *testing.T, h http.Handler, path string, header map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHandler(t *testing.T) {
	source := cluster(t, 2)
	now := time.Unix(0, 0)
	inner, err := page.New(source, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	const prefix = "/apis/example/v1/page"
	h := page.Under(prefix, inner, http.NotFoundHandler())
	for path, want := range map[string]struct {
		code           int
		content, holds string
	}{
		prefix + "/":                  {200, "text/html; charset=utf-8", "<main>"},
		prefix + "/page.css":          {200, "text/css; charset=utf-8", ":root"},
		prefix + "/page.js":           {200, "text/javascript; charset=utf-8", "use strict"},
		prefix + "/model.json":        {200, "application/json", `"name":"gpu-02"`},
		prefix + "/nodes/gpu-01.svg":  {200, "image/svg+xml", "Root complex pci0000:10"},
		prefix + "/nodes/absent.svg":  {404, "", "no inventory"},
		prefix + "/../../etc/passwd":  {404, "", ""},
		prefix + "/static/index.html": {404, "", ""},
		prefix + "s/":                 {404, "", "404"},
		"/":                           {404, "", "404"},
	} {
		w := get(t, h, path, nil)
		if w.Code != want.code || !strings.Contains(w.Body.String(), want.holds) || want.content != "" && w.Header().Get("Content-Type") != want.content {
			t.Errorf("%s: %d %s %.80q", path, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if want.code == 200 && !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: no policy: %v", path, w.Header())
		}
	}
	if w := get(t, h, prefix+"?a=b", nil); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != "page/" {
		t.Errorf("without a slash: %d to %q", w.Code, w.Header().Get("Location"))
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, prefix+"/model.json", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if source.asked != 1 {
		t.Errorf("the cache was read %d times within a moment", source.asked)
	}
	first := get(t, h, prefix+"/model.json", nil)
	again := get(t, h, prefix+"/model.json", map[string]string{"If-None-Match": first.Header().Get("ETag")})
	if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("nothing changed: %d with %d bytes", again.Code, again.Body.Len())
	}
	now = now.Add(time.Minute)
	source.objects.Nodes[0].Spec.Unschedulable = true
	again = get(t, h, prefix+"/model.json", map[string]string{"If-None-Match": first.Header().Get("ETag")})
	if again.Code != http.StatusOK || !strings.Contains(again.Body.String(), `"cordoned":true`) {
		t.Errorf("after a change: %d", again.Code)
	}
	now, source.err = now.Add(time.Minute), errors.New("no such cache")
	if w := get(t, h, prefix+"/model.json", nil); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no such cache") {
		t.Errorf("without a source: %d %q", w.Code, w.Body)
	}
}

// The page must not need anything from elsewhere.
func TestNothingFromElsewhere(t *testing.T) {
	h, err := page.New(&fake{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/", "/page.css", "/page.js"} {
		text := get(t, h, name, nil).Body.String()
		for _, bad := range []string{"http:", "https:", "//cdn", "@import", "innerHTML", "insertAdjacentHTML", "document.write", "eval("} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", name, bad)
			}
		}
	}
}
