// Where everything stands. Each frame is laid out by itself, with the frames in it as boxes; equal frames once.

const BAND = 20, MARGIN = 9, GUTTER = 34, LANE = 7;
const cache = new Map();

// Lay out a frame. Its wires from and to the outside meet its upper and lower edge at ports.
// Sets frame.width, frame.height, frame.placed (child → centre), frame.ports (key → x), frame.ways.
function layoutFrame(frame, wires) {
  const children = [...frame.boxes, ...frame.inside.values()];
  const inside = new Map();  // box id → child that holds it
  for (const one of frame.boxes) inside.set(one.id, one);
  for (const child of frame.inside.values()) {
    layoutFrame(child, wires);
    boxesOf(child).forEach((one) => inside.set(one.id, child));
  }
  frame.holds = inside;
  const number = new Map(children.map((child, i) => [child, `c${i}`]));
  const edges = new Map();  // "from to" → [from, to, weight]
  frame.ways = [];
  for (const wire of wires) {
    const a = inside.get(wire.tail), b = inside.get(wire.head);
    if ((!a && !b) || a === b) continue;
    const from = a ? number.get(a) : `i${wire.tail}`, to = b ? number.get(b) : `o${wire.tail}`;
    edges.set(`${from} ${to}`, [from, to]);
    frame.ways.push({ wire, from, to });
  }
  const sizes = children.map((child) => [Math.ceil(child.width), Math.ceil(child.height)]);
  place(frame, children, sizes, renumbered(edges));
}

function boxesOf(frame) {
  return [...frame.boxes, ...[...frame.inside.values()].flatMap(boxesOf)];
}

// Ports numbered in order of appearance, so that equal frames give equal graphs.
function renumbered(edges) {
  const names = new Map();
  const short = (key) => {
    if (key[0] === "c") return key;
    if (!names.has(key)) names.set(key, `${key[0]}#${names.size}`);
    return names.get(key);
  };
  const list = [...edges.values()].map(([a, b]) => [short(a), short(b)]);
  return { list, names };
}

function place(frame, children, sizes, edges) {
  const key = JSON.stringify([sizes, edges.list, frame.path !== ""]);
  if (!cache.has(key)) cache.set(key, solve(sizes, edges.list, frame.path !== ""));
  const found = cache.get(key);
  frame.width = found.width;
  frame.height = found.height;
  if (frame.title) {
    const button = frame.run ? foldWidth(frame.run) + 8 : 0;
    frame.width = Math.max(frame.width, textWidth(shortened(frame.title, 10, false, 260), 10) + button + 24);
  }
  frame.shift = (frame.width - found.width) / 2;
  children.forEach((child, i) => { child.x = found.at[`c${i}`][0] + frame.shift; child.y = found.at[`c${i}`][1]; });
  frame.curve = (from, to) => {
    const [a, b] = [edges.names.get(from) || from, edges.names.get(to) || to];
    return (found.curves[`${a} ${b}`] || []).map(([x, y]) => [x + frame.shift, y]);
  };
  frame.port = (key) => (found.at[edges.names.get(key)] || [found.width / 2])[0] + frame.shift;
}

// Dagre's layout of boxes of given sizes. Ports are at the upper ("i…") and lower ("o…") edge.
function solve(sizes, list, framed) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "TB", nodesep: 16, edgesep: 12, ranksep: 24, ranker: rank });
  graph.setDefaultEdgeLabel(() => ({}));
  sizes.forEach(([width, height], i) => graph.setNode(`c${i}`, { width, height }));
  for (const key of new Set(list.flat())) if (key[0] !== "c") graph.setNode(key, { width: 6, height: 0 });
  for (const [a, b] of list) graph.setEdge(a, b);
  dagre.layout(graph);
  return measured(graph, sizes, list, framed);
}

// Rows: each box just below the lowest that it reads; what reads nothing just above the first that reads it.
function rank(graph) {
  const rows = new Map();
  const row = (v) => {
    if (!rows.has(v)) rows.set(v, Math.max(0, ...graph.inEdges(v).map((e) => row(e.v) + graph.edge(e).minlen)));
    return rows.get(v);
  };
  graph.nodes().forEach(row);
  for (const v of graph.nodes()) {
    const below = graph.outEdges(v).map((e) => rows.get(e.w) - graph.edge(e).minlen);
    if (v[0] === "c" && !graph.inEdges(v).length && below.length) rows.set(v, Math.min(...below));
  }
  const last = Math.max(...rows.values());
  for (const v of graph.nodes()) graph.node(v).rank = v[0] === "o" ? last : rows.get(v);
}

function measured(graph, sizes, list, framed) {
  const boxes = sizes.map((_, i) => graph.node(`c${i}`));
  const points = list.flatMap(([a, b]) => graph.edge(a, b).points.slice(1, -1));
  const left = Math.min(...boxes.map((n) => n.x - n.width / 2), ...points.map((p) => p.x)) - MARGIN;
  const right = Math.max(...boxes.map((n) => n.x + n.width / 2), ...points.map((p) => p.x)) + MARGIN;
  const top = Math.min(...boxes.map((n) => n.y - n.height / 2)) - (framed ? BAND : 8);
  const low = Math.max(...boxes.map((n) => n.y + n.height / 2)) + MARGIN;
  const at = {};
  graph.nodes().forEach((key) => { const n = graph.node(key); at[key] = [n.x - left, n.y - top]; });
  const curves = {};
  for (const [a, b] of list) {
    const inner = graph.edge(a, b).points.slice(1, -1).filter((p) => p.y > top + 6 && p.y < low - 4);
    curves[`${a} ${b}`] = inner.map((p) => [p.x - left, p.y - top]);
  }
  return { width: right - left, height: low - top, at, curves };
}

// Siblings, boxes with the same neighbours, stand in the order in which they run: q, k and v alike everywhere.
function orderSiblings(frame, wires) {
  for (const child of frame.inside.values()) orderSiblings(child, wires);
  const near = new Map(frame.boxes.map((one) => [one.id, [[], []]]));
  for (const { tail, head } of wires) {
    if (near.has(head)) near.get(head)[0].push(tail);
    if (near.has(tail)) near.get(tail)[1].push(head);
  }
  const alike = new Map();
  for (const one of frame.boxes) {
    const key = JSON.stringify(near.get(one.id));
    alike.set(key, [...(alike.get(key) || []), one]);
  }
  for (const row of alike.values()) {
    if (row.length < 2) continue;
    const before = [...row].sort((a, b) => a.x - b.x);
    const ys = before.map((one) => one.y);
    row.sort((a, b) => a.id - b.id);
    let x = before[0].x - before[0].width / 2;
    const last = before[before.length - 1];
    const room = last.x + last.width / 2 - x - row.reduce((sum, one) => sum + one.width, 0);
    row.forEach((one, i) => {
      one.straight = row[i] !== before[i];
      one.x = x + one.width / 2;
      one.y = ys[i];
      x += one.width + room / (row.length - 1);
    });
  }
}

// The whole: columns side by side, and the ways of the wires between them.
function layoutAll(net, folded) {
  const graph = visibleGraph(net, folded);
  const runs = new Map();
  net.runs.forEach((run, r) => runs.set(run.path, { ...run, number: r, folded: folded.has(r) }));
  const columns = columnsOf(net, graph, folded).map((shown) => {
    shown.forEach((one) => { one.run = undefined; });
    const root = frameTree(shown, runs);
    boxesOf(root).forEach((one) => makeCard(net, one));
    layoutFrame(root, graph.wires);
    orderSiblings(root, graph.wires);
    return root;
  });
  return assemble(graph, columns);
}

// Columns begin where those of the folded drawing do, and within unfolded runs of large modules.
function columnsOf(net, graph, folded) {
  const starts = new Set(net.columns);
  net.runs.forEach((run, r) => {
    if (folded.has(r) || run.copies[0].length < 5) return;
    const each = Math.max(1, Math.round(0.9 * Math.sqrt(run.copies.length)));
    run.copies.forEach((copy, k) => { if (k && k % each === 0) starts.add(Math.min(...copy)); });
  });
  const order = [...starts].sort((a, b) => a - b);
  const shown = order.map(() => []);
  for (const one of graph.boxes.values()) shown[order.findLastIndex((first) => one.id >= first)].push(one);
  return shown.filter((column) => column.length);
}

function assemble(graph, columns) {
  const home = new Map();
  columns.forEach((root, c) => boxesOf(root).forEach((one) => home.set(one.id, c)));
  const crossing = new Map();  // "tail column" → number of the lane
  for (const { tail, head } of graph.wires) {
    const key = `${tail} ${home.get(head)}`;
    if (home.get(tail) !== home.get(head) && !crossing.has(key)) crossing.set(key, crossing.size);
  }
  const lanes = [...crossing.keys()].map((key) => Number(key.split(" ")[1]));
  const top = lanes.length ? LANE * (lanes.length + 2) : 8;
  let x = 0;
  columns.forEach((root, c) => {
    x += (c ? GUTTER : 0) + LANE * lanes.filter((to) => to === c).length;
    absolute(root, x, top);
    x += root.width;
  });
  const ways = graph.wires.map((wire) => ({ wire, points: way(wire, columns, home, crossing, lanes, top) }));
  const height = top + Math.max(...columns.map((root) => root.height)) + LANE * (lanes.length + 2);
  return { graph, columns, ways, width: x, height, home };
}

// From places in a frame to places in the drawing.
function absolute(frame, left, top) {
  frame.left = left;
  frame.top = top;
  for (const one of frame.boxes) { one.cx = left + one.x; one.cy = top + one.y; }
  for (const child of frame.inside.values()) absolute(child, left + child.x - child.width / 2, top + child.y - child.height / 2);
}

// Points of a wire: down through the frames it leaves, across, and up into those it enters.
function way(wire, columns, home, crossing, lanes, top) {
  const a = home.get(wire.tail), b = home.get(wire.head);
  if (a === b) return [...between(columns[a], wire)];
  const [tail, head] = [chain(columns[a], wire.tail), chain(columns[b], wire.head)];
  const number = crossing.get(`${wire.tail} ${b}`);
  const lane = lanes.slice(0, number).filter((to) => to === b).length;
  const lower = top + Math.max(...columns.slice(a, b).map((root) => root.height)) + LANE * (1 + number);
  const up = columns[b].left - GUTTER / 2 - LANE * lane;
  const over = LANE * (1 + lane);
  const out = leave(tail, wire), into = enter(head, wire);
  const [x0] = out[out.length - 1], [x1] = into[0];
  return [...out, { corner: [x0, lower] }, { corner: [up, lower] }, { corner: [up, over] }, { corner: [x1, over] }, ...into];
}

// Frames around a box, the outermost first, then the box.
function chain(root, id) {
  const found = [root];
  for (let here = root.holds.get(id); here; here = here.holds && here.holds.get(id)) found.push(here);
  return found;
}

// Both ends in one column: climb to the frame that holds both.
function between(root, wire) {
  const [a, b] = [chain(root, wire.tail), chain(root, wire.head)];
  let k = 0;
  while (a[k + 1] && a[k + 1] === b[k + 1]) k += 1;
  const frame = a[k];
  const out = leave(a.slice(k), wire, true), into = enter(b.slice(k), wire, true);
  const way = frame.ways.find((w) => w.wire === wire);
  const straight = a[k + 1].straight || b[k + 1].straight;
  const middle = way && !straight ? frame.curve(way.from, way.to).map(([x, y]) => [x + frame.left, y + frame.top]) : [];
  return [...out, ...middle, ...into];
}

// From the lower edge of the tail's box to the lower edge of the outermost frame of a chain (without it: `open`).
function leave(frames, wire, open = false) {
  const box = frames[frames.length - 1];
  const points = [[box.cx, box.cy + box.height / 2]];
  for (let k = frames.length - 2; k >= (open ? 1 : 0); k -= 1) {
    const frame = frames[k], key = `o${wire.tail}`;
    const way = frame.ways.find((w) => w.wire === wire);
    if (way && !frames[k + 1].straight) frame.curve(way.from, way.to).forEach(([x, y]) => points.push([x + frame.left, y + frame.top]));
    points.push([frame.left + frame.port(key), frame.top + frame.height]);
  }
  return points;
}

function enter(frames, wire, open = false) {
  const box = frames[frames.length - 1];
  const points = [];
  for (let k = open ? 1 : 0; k < frames.length - 1; k += 1) {
    const frame = frames[k], key = `i${wire.tail}`;
    points.push([frame.left + frame.port(key), frame.top]);
    const way = frame.ways.find((w) => w.wire === wire);
    if (way && !frames[k + 1].straight) frame.curve(way.from, way.to).forEach(([x, y]) => points.push([x + frame.left, y + frame.top]));
  }
  points.push([box.cx, box.cy - box.height / 2]);
  return points;
}
