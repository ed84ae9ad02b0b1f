package cli

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/kubevfio/kubevfio/controller/page"
)

// The port on the loopback address lends the caller's credentials: only for the page,
// only to who knows the path, only for reading.
func TestPageProxy(t *testing.T) {
	code := http.StatusOK
	var last *http.Request
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		w.WriteHeader(code)
	}))
	defer api.Close()
	p, err := newPageProxy(&rest.Config{Host: api.URL, BearerToken: "mine"}, "/secret")
	if err != nil {
		t.Fatal(err)
	}
	p.host = "127.0.0.1:9999"
	for name, c := range map[string]struct {
		method, host, path string
		want               int
	}{
		"page":               {"GET", p.host, "/secret" + page.Path + "/", 200},
		"model":              {"GET", p.host, "/secret" + page.Path + "/model.json", 200},
		"log":                {"GET", p.host, "/secret/api/v1/namespaces/vms/pods/vm-1/log?container=compute", 200},
		"head":               {"HEAD", p.host, "/secret" + page.Path + "/page.js", 200},
		"no secret":          {"GET", p.host, page.Path + "/", 404},
		"wrong secret":       {"GET", p.host, "/secreT" + page.Path + "/", 404},
		"another host":       {"GET", "evil.example:9999", "/secret" + page.Path + "/", 404},
		"post":               {"POST", p.host, "/secret" + page.Path + "/", 405},
		"delete a log":       {"DELETE", p.host, "/secret/api/v1/namespaces/vms/pods/vm-1/log", 405},
		"secrets":            {"GET", p.host, "/secret/api/v1/namespaces/vms/secrets", 404},
		"a pod":              {"GET", p.host, "/secret/api/v1/namespaces/vms/pods/vm-1", 404},
		"exec":               {"GET", p.host, "/secret/api/v1/namespaces/vms/pods/vm-1/exec", 404},
		"up from the page":   {"GET", p.host, "/secret" + page.Path + "/../../../../api/v1/secrets", 404},
		"another API's page": {"GET", p.host, "/secret" + page.Path + "s", 404},
		"console subresource": {
			"GET", p.host, "/secret/apis/subresources.kubevfio.io/v1alpha1/namespaces/vms/virtualmachineinstances/vm/console", 404,
		},
	} {
		t.Run(name, func(t *testing.T) {
			last = nil
			r := httptest.NewRequest(c.method, "http://"+c.host+c.path, nil)
			r.Header.Set("Authorization", "Bearer theirs")
			r.Header.Set("Impersonate-User", "admin")
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if w.Code != c.want || (last != nil) != (c.want == 200) {
				t.Fatalf("%d, forwarded %v; want %d", w.Code, last != nil, c.want)
			}
			if last == nil {
				return
			}
			if want := strings.TrimPrefix(c.path, "/secret"); last.URL.RequestURI() != want {
				t.Errorf("asked for %s, want %s", last.URL.RequestURI(), want)
			}
			if got := last.Header.Get("Authorization"); got != "Bearer mine" || last.Header.Get("Impersonate-User") != "" {
				t.Errorf("credentials %q, headers %v", got, last.Header)
			}
		})
	}
	for status, words := range map[int]string{200: "", 403: "kubevfio-page", 401: "log in", 404: "not there", 503: "not ready", 500: "500"} {
		code = status
		err := p.probe(context.Background())
		if (err == nil) != (status == 200) || err != nil && (!errors.Is(err, ErrPage) || !strings.Contains(err.Error(), words)) {
			t.Errorf("probe of %d: %v", status, err)
		}
	}
	p.local = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("local " + r.URL.Path)) })
	last = nil
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest("GET", "http://"+p.host+"/secret"+page.Path+"/model.json", nil))
	if w.Body.String() != "local /model.json" || last != nil {
		t.Errorf("a page of our own: %q, forwarded %v", w.Body, last != nil)
	}
}
