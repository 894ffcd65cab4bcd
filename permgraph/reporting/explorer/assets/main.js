// The page: what is folded and selected, what is shown of it, and what a click or a key does.

const net = DATA;
const drawing = document.getElementById("drawing"), panel = document.getElementById("panel");
const search = document.getElementById("search"), found = document.getElementById("found");
const view = new Viewport(drawing);
const state = { folded: new Set(net.runs.map((_, r) => r)), groups: [], box: null };
let plan, root;

function draw() {
  plan = layoutAll(net, state.folded);
  const made = renderAll(net, plan);
  if (root) root.replaceWith(made);
  else drawing.append(made);
  root = made;
  view.show(root, plan.width, plan.height);
  document.getElementById("fold").textContent = state.folded.size ? "Unfold all" : "Fold all";
  document.getElementById("fold").hidden = !net.runs.length;
  light(state.groups);
}

// The places of some groups are strong, the rest pales.
function light(groups) {
  const chosen = groups.map((g) => ` ${g} `);
  root.classList.toggle("focus", chosen.length > 0 || state.box !== null);
  for (const one of root.querySelectorAll("[data-groups]")) {
    const touched = one.dataset.groups;
    one.classList.toggle("lit", chosen.some((g) => touched.includes(g)) || isBox(one));
  }
}

function isBox(one) {
  return state.box !== null && Number(one.dataset.box) === plan.graph.stands[state.box];
}

function show() {
  const content = state.box !== null ? boxPanel(net, state.box, plan.graph.boxes.get(plan.graph.stands[state.box]).members.length, selectGroups)
    : state.groups.length ? groupsPanel(net, state.groups, selectGroups, selectTensor)
      : overview(net, selectGroups);
  panel.replaceChildren(...content.flat(Infinity).filter((part) => part !== null));
  panel.scrollTop = 0;
  light(state.groups);
  remember();
}

function selectGroups(groups) {
  Object.assign(state, { groups, box: null });
  show();
}

function selectBox(box, centre = false) {
  Object.assign(state, { groups: [], box });
  show();
  if (centre) {
    const one = plan.graph.boxes.get(plan.graph.stands[box]);
    view.centre(one.cx, one.cy);
  }
}

function selectTensor(tensor) {
  const box = net.boxes.findIndex((b) => (b.tensors || []).some(([name]) => name === tensor));
  if (box >= 0) selectBox(box, true);
}

function toggle(run, element) {
  const frame = element.getBoundingClientRect(), canvas = drawing.getBoundingClientRect();
  const place = [frame.left - canvas.left, frame.top - canvas.top];
  if (state.folded.has(run)) state.folded.delete(run);
  else state.folded.add(run);
  draw();
  const first = plan.graph.boxes.get(plan.graph.stands[net.runs[run].copies[0][0]]);
  view.hold(first.cx, first.cy, place);
  show();
  const button = root.querySelector(`[data-run="${run}"]`);
  if (button) button.focus({ preventScroll: true });
}

// Links to what is seen: #groups=heads.3&open=encoder.layers.0
function remember() {
  const parts = new URLSearchParams();
  if (state.groups.length) parts.set("groups", state.groups.map((g) => net.groups[g].name).join(","));
  if (state.box !== null) parts.set("box", String(state.box));
  const open = net.runs.filter((_, r) => !state.folded.has(r)).map((run) => run.path);
  if (open.length) parts.set("open", open.join(","));
  history.replaceState(null, "", parts.size ? `#${parts}` : "#");
}

function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const names = new Set((parts.get("groups") || "").split(","));
  state.groups = net.groups.map((_, g) => g).filter((g) => names.has(net.groups[g].name));
  const box = Number(parts.get("box") ?? NaN);
  state.box = Number.isInteger(box) && box >= 0 && box < net.boxes.length ? box : null;
  const open = new Set((parts.get("open") || "").split(","));
  state.folded = new Set(net.runs.map((_, r) => r).filter((r) => !open.has(net.runs[r].path)));
}

// What is found: groups, tensors and modules whose name holds what was typed.
function matches(text) {
  const typed = text.trim().toLowerCase();
  if (!typed) return [];
  const has = (name) => name.toLowerCase().includes(typed);
  const groups = net.groups.flatMap((group, g) => (has(group.name) ? [["group", group.name, () => selectGroups([g])]] : []));
  const tensors = net.boxes.flatMap((box, i) => (box.tensors || []).filter(([name]) => has(name)).map(([name]) => ["tensor", name, () => selectBox(i, true)]));
  const modules = net.boxes.flatMap((box, i) => (box.module && has(box.module) ? [["module", box.module, () => selectBox(i, true)]] : []));
  const once = new Map([...groups, ...modules, ...tensors].map((row) => [`${row[0]} ${row[1]}`, row]));
  return [...once.values()].sort((a, b) => a[1].length - b[1].length);
}

function list() {
  const all = matches(search.value);
  const rows = all.slice(0, 60).map(([kind, name, act]) => html("li", {}, html("button", { class: "link", onclick: () => { act(); search.blur(); close(); } }, html("small", {}, `${kind} `), name)));
  if (all.length > 60) rows.push(html("li", {}, `and ${all.length - 60} more`));
  if (search.value.trim() && !all.length) rows.push(html("li", {}, "nothing of that name"));
  found.replaceChildren(...rows);
}

function close() {
  found.replaceChildren();
}

drawing.addEventListener("click", (event) => {
  if (view.dragged()) return;
  act(event.target);
});

function act(target) {
  const fold = target.closest(".fold"), mark = target.closest(".mark"), box = target.closest(".box"), wire = target.closest(".wire");
  if (fold) toggle(Number(fold.dataset.run), fold);
  else if (mark) selectGroups(mark.dataset.mark.split(" ").map(Number));
  else if (box) selectBox(Number(box.dataset.box));
  else if (wire) selectGroups(wire.dataset.groups.trim() ? wire.dataset.groups.trim().split(" ").map(Number) : []);
  else selectGroups([]);
}

drawing.addEventListener("pointerover", (event) => {
  const mark = event.target.closest(".mark"), wire = event.target.closest(".wire");
  if (state.groups.length || state.box !== null) return;
  light(mark ? mark.dataset.mark.split(" ").map(Number) : wire && wire.dataset.groups.trim() ? wire.dataset.groups.trim().split(" ").map(Number) : []);
});

search.addEventListener("input", list);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter") found.querySelector("button")?.click();
  if (event.key === "ArrowDown") found.querySelector("button")?.focus();
});
found.addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (step) { event.preventDefault(); document.activeElement.closest("li")?.[step]?.querySelector("button")?.focus(); }
});

const KEYS = {
  "/": () => { search.focus(); search.select(); },
  "+": () => view.zoom(1.25),
  "=": () => view.zoom(1.25),
  "-": () => view.zoom(0.8),
  0: () => view.fit(),
  f: () => foldAll(state.folded.size > 0),
  ArrowLeft: () => view.pan(60, 0),
  ArrowRight: () => view.pan(-60, 0),
  ArrowUp: () => view.pan(0, 60),
  ArrowDown: () => view.pan(0, -60),
};

function foldAll(open) {
  state.folded = new Set(open ? [] : net.runs.map((_, r) => r));
  draw();
  show();
  view.fit();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { close(); document.activeElement.blur(); selectGroups([]); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
  if ((event.key === "Enter" || event.key === " ") && drawing.contains(event.target) && event.target !== drawing) {
    event.preventDefault();
    act(event.target);
  } else if (KEYS[event.key] && !found.contains(event.target)) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

document.getElementById("fit").addEventListener("click", () => view.fit());
document.getElementById("fold").addEventListener("click", () => foldAll(state.folded.size > 0));
document.getElementById("home").addEventListener("click", () => selectGroups([]));
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
window.addEventListener("resize", () => view.fit());
window.addEventListener("hashchange", () => { recall(); draw(); show(); });

recall();
draw();
show();
view.fit();
document.documentElement.dataset.ready = "yes";
