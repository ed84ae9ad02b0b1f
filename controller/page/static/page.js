// Draws model.json. Text goes into the page only as text nodes: names are other people's.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const el = (tag, props = {}, ...children) => {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(props)) {
      if (v === undefined || v === false) continue;
      if (k === "class") e.className = v;
      else if (k === "hue") e.style.setProperty("--hue", v);
      else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
      else e.setAttribute(k, v === true ? "" : v);
    }
    e.append(...children.filter((c) => c !== undefined && c !== ""));
    return e;
  };
  // People on call come for what is wrong.
  const urgency = ["bad", "busy", "ok", "off"], collator = new Intl.Collator("en", { numeric: true });
  const words = { f: "free", h: "held", n: "not ready", o: "not offered" };
  const state = { model: undefined, tag: "", open: new Set(), pick: "", cards: new Map(), find: "", show: "all", detail: undefined };

  // Which holder's devices stand out: from the address, so that a link can say it.
  const pickFromHash = () => decodeURIComponent(location.hash.slice(1));

  const tail = (address) => address.slice(address.indexOf(":") + 1);
  const big = (kind) => !kind.vf;

  function unit(node, i, open) {
    const m = state.model, u = node.units[i], kind = m.kinds[u.k], holder = u.h === undefined ? undefined : m.holders[u.h];
    const what = [u.a, kind.product, kind.resource, holder ? "held by " + holder.name : words[u.s], u.p].filter(Boolean).join(", ");
    const b = el("button", {
      type: "button", class: "u " + u.s + (big(kind) ? " big" : "") + (u.p && u.s === "h" ? " sick" : ""),
      "aria-label": what, title: what, tabindex: open ? undefined : "-1", hue: holder?.hue, "data-holder": holder?.machine ?? holder?.name ?? "",
      onclick: () => showUnit(node, u),
    });
    if (!open) return b;
    b.append(el("code", {}, big(kind) ? u.a : tail(u.a)));
    if (big(kind)) {
      b.append(el("small", {}, kind.product ?? ""), el("small", {}, u.p ? "not ready" : holder ? holder.name : words[u.s]));
    }
    return b;
  }

  function place(node, p, open) {
    const box = el("div", { class: "place " + p.k });
    if (p.t && open) box.append(el("p", {}, el("b", {}, p.t), p.l ? " " + p.l.join(" · ") : ""));
    if (p.u) box.append(el("div", { class: "units" }, ...p.u.map((i) => unit(node, i, open))));
    if (p.c) box.append(el("div", { class: "inner" }, ...p.c.map((c) => place(node, c, open))));
    return box;
  }

  function card(node) {
    const open = state.open.has(node.name);
    const count = { f: 0, h: 0, n: 0, o: 0 };
    const sick = node.units.filter((u) => { count[u.s]++; return u.p; });
    const alarm = sick.length > 0 || node.notReady;
    const toggle = () => {
      open ? state.open.delete(node.name) : state.open.add(node.name);
      drawNode(node, true);
    };
    const c = el("article", { class: "node" + (open ? " open" : "") + (alarm ? " alarm" : ""), id: "node-" + node.name, "aria-label": "Node " + node.name },
      el("header", {},
        el("h3", {}, el("button", { type: "button", "aria-expanded": String(open), onclick: toggle }, node.name)),
        !node.notReady ? "" : el("span", { class: "tag bad" }, "NotReady"),
        node.cordoned ? el("span", { class: "tag busy" }, "cordoned") : "",
        open ? el("span", { class: "msg" }, "topology manager " + node.policy) : "",
        open ? el("a", { class: "link", href: "nodes/" + encodeURIComponent(node.name) + ".svg", download: node.name + ".svg" }, "SVG") : "",
        el("span", { class: "count" }, `${count.h} held · ${count.f} free` + (sick.length ? ` · ${sick.length} sick` : ""))),
      ...(open ? sick : sick.slice(0, 1)).map((u) => el("p", { class: "problem" }, u.p.startsWith(u.a) ? u.p : u.a + ": " + u.p)),
      el("div", { class: "wires" }, place(node, node.tree, open)));
    return c;
  }

  function drawNode(node, focus) {
    const text = JSON.stringify(node) + state.open.has(node.name);
    const old = state.cards.get(node.name);
    if (old?.text === text) return old.card;
    const fresh = card(node);
    if (old) old.card.replaceWith(fresh);
    state.cards.set(node.name, { text, card: fresh });
    if (focus) fresh.querySelector("h3 button").focus();
    mark(fresh);
    return fresh;
  }

  // mark lets the devices of the picked machine stand out.
  function mark(root) {
    document.body.classList.toggle("pick", state.pick !== "");
    for (const u of root.querySelectorAll(".u[data-holder]")) u.classList.toggle("on", state.pick !== "" && u.dataset.holder === state.pick);
  }

  function pick(who) {
    state.pick = state.pick === who ? "" : who;
    history.replaceState(null, "", state.pick ? "#" + encodeURIComponent(state.pick) : location.pathname + location.search);
    mark(document);
    drawMachines();
    const first = state.pick && document.querySelector("#nodes .u.on");
    if (first) first.closest(".node").scrollIntoView({ block: "nearest" });
  }

  function drawMachines() {
    const body = $("machines"), m = state.model;
    const focused = document.activeElement?.dataset?.machine;
    const rows = m.machines.filter((v) => matches(v.namespace + "/" + v.name, v.status, v.node, v.message)).flatMap((v) => {
      const id = v.namespace + "/" + v.name, on = state.pick === id ? "on" : "";
      const row = el("tr", { class: on },
        el("td", {}, el("div", { class: "who" }, el("span", { class: "dot", hue: v.hue }),
          el("button", { type: "button", class: "name", "aria-pressed": String(on !== ""), "data-machine": id, onclick: () => pick(id) }, el("span", { class: "ns" }, v.namespace + "/"), v.name))),
        el("td", {}, el("span", { class: v.level }, v.status), v.phase && v.phase !== v.status ? el("div", { class: "msg" }, v.phase) : "",
          v.pod ? el("div", {}, el("button", { type: "button", class: "link", "aria-label": "Console of " + id, onclick: () => openConsole(v) }, "console")) : ""),
        el("td", {}, v.node ?? "–", v.ip ? el("div", { class: "msg" }, v.ip) : ""),
        el("td", {}, v.devices ?? "–", v.alignment ? el("div", { class: "msg" }, v.alignment) : ""));
      return v.message ? [row, el("tr", { class: "more " + on }, el("td", { colspan: 4, class: "msg" }, v.message))] : [row];
    });
    if (rows.length === 0) rows.push(el("tr", {}, el("td", { colspan: 4, class: "msg" }, m.machines.length ? "No machine matches." : "No virtual machines yet.")));
    body.replaceChildren(...rows);
    if (focused) body.querySelector(`[data-machine="${CSS.escape(focused)}"]`)?.focus();
  }

  const matches = (...texts) => state.find === "" || texts.some((t) => t && t.toLowerCase().includes(state.find));

  function nodeMatches(n) {
    const m = state.model;
    if (state.show === "problems" && !n.notReady && !n.units.some((u) => u.p)) return false;
    if (state.show === "free" && !n.units.some((u) => u.s === "f")) return false;
    return matches(n.name) || n.units.some((u) => matches(u.a, m.kinds[u.k].resource, m.kinds[u.k].product, u.h === undefined ? "" : m.holders[u.h].name));
  }

  function draw() {
    const m = state.model;
    const units = m.nodes.flatMap((n) => n.units);
    const totals = [
      ["nodes", m.nodes.length], ["machines", m.machines.length], ["running", m.machines.filter((v) => v.level === "ok").length],
      ["devices", units.length], ["held", units.filter((u) => u.s === "h").length], ["free", units.filter((u) => u.s === "f").length],
      ["not ready", units.filter((u) => u.p).length],
    ];
    $("totals").replaceChildren(...totals.map(([k, v]) => el("div", { class: k === "not ready" && v ? "alarm" : "" }, el("dt", {}, k), el("dd", {}, String(v)))));
    const wanted = m.nodes.filter(nodeMatches);
    $("none").hidden = wanted.length > 0;
    $("none").textContent = m.nodes.length ? "No node matches." : "No node has published an inventory: does the agent run?";
    const box = $("nodes"), names = new Set(m.nodes.map((n) => n.name));
    for (const [name, c] of state.cards) if (!names.has(name)) { c.card.remove(); state.cards.delete(name); }
    // Only what changed is drawn anew, so that focus and scroll positions stay.
    let at = box.firstElementChild;
    for (const n of wanted) {
      const c = drawNode(n);
      if (c === at) { at = at.nextElementSibling; continue; }
      box.insertBefore(c, at);
    }
    while (at) { const next = at.nextElementSibling; at.remove(); at = next; }
    drawMachines();
    mark(document);
    if (!document.documentElement.dataset.drawn) performance.mark("drawn");
    document.documentElement.dataset.drawn = state.tag;
  }

  function showUnit(node, u) {
    const m = state.model, kind = m.kinds[u.k], holder = u.h === undefined ? undefined : m.holders[u.h];
    const rows = [["node", node.name], ["product", kind.product], ["resource", kind.resource], ["state", words[u.s]], ["holder", holder?.name], ["problem", u.p], ["with", u.m?.join(", ")]];
    const machine = holder?.machine && m.machines.find((v) => v.namespace + "/" + v.name === holder.machine);
    $("detail").replaceChildren(el("strong", {}, u.a),
      el("dl", {}, ...rows.filter(([, v]) => v).flatMap(([k, v]) => [el("dt", {}, k), el("dd", { class: k === "problem" ? "bad" : "" }, v)])),
      el("div", { class: "acts" },
        holder ? el("button", { type: "button", class: "link", onclick: () => pick(holder.machine ?? holder.name) }, "show all of this holder") : "",
        machine?.pod ? el("button", { type: "button", class: "link", onclick: () => openConsole(machine) }, "console") : "",
        el("button", { type: "button", class: "link", onclick: hideDetail }, "close")));
    $("detail").hidden = false;
    state.detail = document.activeElement;
  }

  function hideDetail() {
    $("detail").hidden = true;
    state.detail?.focus?.();
  }

  // The serial console is the pod's log. Kubernetes decides whether the person may read it.
  const lines = 2000;
  let follow;
  async function openConsole(v) {
    const dialog = $("console"), text = $("console-text");
    $("console-title").textContent = "Console of " + v.namespace + "/" + v.name;
    $("console-note").textContent = "read-only; kubectl vfio console " + v.name + " types into it";
    text.replaceChildren("…");
    if (!dialog.open) dialog.showModal();
    const base = location.pathname.split("/apis/")[0];
    const url = `${base}/api/v1/namespaces/${encodeURIComponent(v.namespace)}/pods/${encodeURIComponent(v.pod)}/log?container=compute&tailLines=${lines}`;
    const load = async () => {
      try {
        const r = await fetch(url, { headers: { Accept: "text/plain, */*" } });
        const body = await r.text();
        if (r.status === 403 || r.status === 401) {
          text.replaceChildren(`You may not read the log of this pod: it needs the right to "get" "pods/log" in namespace ${v.namespace}.`);
          return;
        }
        if (!r.ok) throw new Error(reason(body) || r.statusText);
        const end = text.scrollTop + text.clientHeight >= text.scrollHeight - 30;
        text.replaceChildren(body === "" ? "(nothing yet)" : colours(body));
        if (end || !follow) text.scrollTop = text.scrollHeight;
      } catch (e) {
        text.replaceChildren("The log cannot be read: " + e.message);
      }
    };
    clearInterval(follow);
    follow = undefined;
    await load();
    if (dialog.open) follow = setInterval(load, 3000);
  }
  const reason = (body) => { try { return JSON.parse(body).message; } catch { return body.slice(0, 200); } };

  // colours turns the colour sequences of a terminal into spans and drops all others.
  function colours(text) {
    const out = document.createDocumentFragment();
    let colour = "", bold = false, last = 0;
    const put = (s) => {
      s = s.replace(/\r\n/g, "\n").replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "");
      if (s) out.append(colour || bold ? el("span", { class: (colour ? "c" + colour : "") + (bold ? " b" : "") }, s) : s);
    };
    for (const m of text.matchAll(/\u001b\[([0-9;?]*)([A-Za-z])/g)) {
      put(text.slice(last, m.index));
      last = m.index + m[0].length;
      if (m[2] !== "m") continue;
      for (const n of (m[1] || "0").split(";").map(Number)) {
        if (n === 0) { colour = ""; bold = false; }
        else if (n === 1) bold = true;
        else if (n === 39) colour = "";
        else if ((n >= 30 && n <= 37) || (n >= 90 && n <= 97)) colour = String(n % 10);
      }
    }
    put(text.slice(last));
    return out;
  }

  let failures = 0;
  async function load() {
    try {
      const r = await fetch("model.json", state.tag ? { headers: { "If-None-Match": state.tag }, cache: "no-store" } : { cache: "no-store" });
      if (r.status !== 304) {
        if (!r.ok) throw new Error(r.status === 403 ? "you may not see this page any more" : reason(await r.text()) || r.statusText);
        state.model = await r.json();
        state.model.machines.sort((a, b) => urgency.indexOf(a.level) - urgency.indexOf(b.level) || collator.compare(a.namespace + "/" + a.name, b.namespace + "/" + b.name));
        state.tag = r.headers.get("ETag") ?? String(Date.now());
        draw();
      }
      failures = 0;
      $("fresh").textContent = "as of " + new Date().toLocaleTimeString();
      $("fresh").classList.remove("stale");
    } catch (e) {
      failures++;
      $("fresh").textContent = "not up to date: " + e.message;
      $("fresh").classList.add("stale");
    }
    setTimeout(load, document.hidden ? 30000 : Math.min(5000 * (failures + 1), 30000));
  }

  $("sample").style.setProperty("--hue", 210);
  $("find").addEventListener("input", (e) => { state.find = e.target.value.trim().toLowerCase(); if (state.model) draw(); });
  $("show").addEventListener("change", (e) => { state.show = e.target.value; if (state.model) draw(); });
  $("console-close").addEventListener("click", () => $("console").close());
  $("console").addEventListener("close", () => { clearInterval(follow); follow = undefined; });
  $("theme").addEventListener("click", () => {
    const now = document.documentElement.className;
    const dark = now === "dark" || (now === "" && matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.className = dark ? "light" : "dark";
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "/" && document.activeElement?.tagName !== "INPUT" && !$("console").open) { e.preventDefault(); $("find").focus(); }
    if (e.key === "Escape" && !$("console").open) { if (!$("detail").hidden) hideDetail(); else if (state.pick) pick(state.pick); }
  });
  state.pick = pickFromHash();
  load();
})();
