package page_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
)

// overflow lists what sticks out of the window or out of its box.
const overflow = `(() => {
  const out = [];
  if (document.documentElement.scrollWidth > innerWidth) out.push("page: " + document.documentElement.scrollWidth + " of " + innerWidth);
  for (const e of document.querySelectorAll(".node, .wires, .group, .u, header.top, .bar"))
    if (e.checkVisibility() && e.scrollWidth > e.clientWidth + 1) out.push(e.className + ": " + e.scrollWidth + " of " + e.clientWidth + " " + (e.id || e.ariaLabel));
  return out.slice(0, 10);
})()`

// contrast is the worst of text against what is behind it, after WCAG 2.
const contrast = `(() => {
  const parse = (c) => { const n = c.match(/[\d.]+/g).map(Number); return c.startsWith("color(srgb") ? [n[0]*255, n[1]*255, n[2]*255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1]; };
  const lum = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }).reduce((a, v, i) => a + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > .99) return c; } return [255, 255, 255]; };
  let worst = ["", 99];
  for (const e of document.querySelectorAll(".node.open .u code, .node.open .u small, td, td .msg, td .link, .problem, .place > p, .legend li, .totals dt, .tag, .count")) {
    const a = lum(parse(getComputedStyle(e).color)), b = lum(behind(e));
    const c = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (c < worst[1]) worst = [e.className + " " + e.textContent.slice(0, 30), c];
  }
  return worst;
})()`

func TestPage(t *testing.T) {
	for _, nodes := range []int{3, 50} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			server, _ := serve(t, nodes)
			b := open(t, server.URL+prefix+"/", 1440, 1000)
			if got := js[int](b, `document.querySelectorAll(".node").length`); got != nodes {
				t.Errorf("%d nodes are drawn, want %d", got, nodes)
			}
			if got := js[int](b, `document.querySelectorAll("#nodes .u").length`); got != nodes*73 {
				t.Errorf("%d devices are drawn, want %d", got, nodes*73)
			}
			b.shot(fmt.Sprintf("%d-nodes", nodes))
			for _, size := range [][2]int64{{1440, 1000}, {1024, 768}, {390, 844}} {
				b.do(chromedp.EmulateViewport(size[0], size[1]))
				if d := js[[]string](b, overflow); len(d) > 0 {
					t.Errorf("%d nodes, %dx%d: overflows: %q", nodes, size[0], size[1], d)
				}
			}
			b.shot(fmt.Sprintf("%d-nodes-phone", nodes))
			t.Logf("%d nodes: drawn %.0f ms after the navigation began; model %.0f bytes, %.0f on the wire; %d elements", nodes,
				js[float64](b, `performance.getEntriesByName("drawn")[0].startTime`),
				js[float64](b, `performance.getEntriesByType("resource").find((r) => r.name.endsWith("model.json")).decodedBodySize`),
				js[float64](b, `performance.getEntriesByType("resource").find((r) => r.name.endsWith("model.json")).encodedBodySize`),
				js[int](b, `document.querySelectorAll("*").length`))
		})
	}
}

func TestKeyboard(t *testing.T) {
	server, source := serve(t, 3)
	b := open(t, server.URL+prefix+"/", 1440, 1000)
	if n := js[int](b, `document.querySelectorAll("img").length`); n != 0 {
		t.Errorf("text of others became %d elements", n)
	}

	// A node opens by the keyboard and shows its wiring in words.
	b.do(chromedp.Focus(chromedp.CSS(`#node-gpu-02 h3 button`)), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`#node-gpu-02.open`)))
	text := js[string](b, `document.querySelector("#node-gpu-02").innerText`)
	for _, want := range []string{"Socket 1", "NUMA node 3", "CPUs 72-95,168-191", "Root complex pci0000:10", "Switch 0000:11:00.0", "VFs of 0000:14:00.0", "0000:13:00.0", "H200 SXM", "reset failed"} {
		if !strings.Contains(text, want) {
			t.Errorf("the open node does not say %q", want)
		}
	}
	if got := js[string](b, `document.activeElement.textContent`); got != "gpu-02" {
		t.Errorf("focus is on %q after opening", got)
	}
	if d := js[[]string](b, overflow); len(d) > 0 {
		t.Errorf("open node overflows: %q", d)
	}
	b.shot("open")
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		if got := js[[]any](b, contrast); got[1].(float64) < 4.5 {
			t.Errorf("%s: contrast %.2f of %q, want 4.5", scheme, got[1], got[0])
		}
		b.shot(scheme)
	}
	if light, dark := "rgb(246, 247, 249)", js[string](b, `getComputedStyle(document.body).backgroundColor`); light == dark {
		t.Error("dark is light")
	}

	// A device tells what it is; Escape goes back to it.
	b.do(chromedp.Focus(chromedp.CSS(`#node-gpu-02 .u.n`)), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`#detail`)))
	if text := js[string](b, `document.querySelector("#detail").innerText`); !strings.Contains(text, "reset failed") || !strings.Contains(text, "example.com/h200") {
		t.Errorf("detail: %q", text)
	}
	b.do(chromedp.KeyEvent(kb.Escape), chromedp.WaitNotVisible(chromedp.CSS(`#detail`)))
	if !js[bool](b, `document.activeElement.matches("#node-gpu-02 .u.n")`) {
		t.Error("focus is lost after the detail")
	}

	// A machine's devices stand out.
	b.do(chromedp.Focus(chromedp.CSS(`[data-machine="vms/trainer-0"]`)), chromedp.KeyEvent(kb.Enter))
	if got := js[[]string](b, `[...document.querySelectorAll(".u.on")].map((u) => u.ariaLabel.split(",")[0])`); len(got) != 3 || got[0] != "0000:13:00.0" {
		t.Errorf("devices that stand out: %q", got)
	}
	b.shot("picked")
	b.do(chromedp.KeyEvent(kb.Escape))

	// The search.
	b.do(chromedp.KeyEvent("/"), chromedp.KeyEvent("trainer-2"))
	got := js[[]string](b, `[...document.querySelectorAll(".node")].map((n) => n.id)`)
	if d := cmp.Diff([]string{"node-gpu-02"}, got); d != "" {
		t.Errorf("nodes found (-want +got):\n%s", d)
	}
	js[bool](b, `(() => { const f = document.querySelector("#find"); f.value = ""; return f.dispatchEvent(new Event("input")); })()`)

	// What changes in the cluster comes by itself; the open node stays open.
	source.mu.Lock()
	source.objects.Nodes[0].Spec.Unschedulable = true
	source.mu.Unlock()
	b.do(chromedp.WaitVisible(chromedp.CSS(`#node-gpu-01 .tag`)))
	if n := js[int](b, `document.querySelectorAll(".node.open").length`); n != 1 {
		t.Errorf("%d nodes are open after an update", n)
	}
}

func TestConsole(t *testing.T) {
	server, _ := serve(t, 3)
	b := open(t, server.URL+prefix+"/", 1200, 800)
	console := func(machine string) string {
		b.do(chromedp.Click(chromedp.CSS(`[aria-label="Console of `+machine+`"]`)), chromedp.WaitVisible(chromedp.CSS(`#console[open]`)))
		b.until(`document.querySelector("#console-text").textContent !== "…"`)
		return js[string](b, `document.querySelector("#console-text").textContent`)
	}
	if d := cmp.Diff("[  OK  ] Started sshd\nlogin: <script>bad()</script>\n", console("vms/trainer-0")); d != "" {
		t.Errorf("console (-want +got):\n%s", d)
	}
	if got := js[string](b, `document.querySelector("#console-text span").className`); got != "c2 b" {
		t.Errorf("colour %q", got)
	}
	b.shot("console")
	b.do(chromedp.KeyEvent(kb.Escape), chromedp.WaitNotVisible(chromedp.CSS(`#console`)))
	if got := console("vms/trainer-1"); !strings.Contains(got, `"pods/log" in namespace vms`) {
		t.Errorf("a console that one may not read: %q", got)
	}
}
