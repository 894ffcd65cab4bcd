// The drawing as SVG elements. Names are always text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
}

function label(x, y, text, size, more = {}) {
  return element("text", { x: x.toFixed(1), y: y.toFixed(1), "font-size": size, ...more }, text);
}

function renderAll(net, plan) {
  const root = element("g");
  for (const column of plan.columns) renderFrames(root, column);
  for (const { wire, points } of plan.ways) root.append(renderWire(net, wire, points));
  for (const column of plan.columns) renderTitles(root, column);
  for (const one of plan.graph.boxes.values()) root.append(renderBox(net, one));
  return root;
}

function renderFrames(root, frame) {
  for (const child of frame.inside.values()) {
    root.append(element("rect", { class: "frame", x: child.left, y: child.top, width: child.width, height: child.height, rx: 6 }));
    renderFrames(root, child);
  }
}

// A title stands on a ground of its own, above the wires. A run of equal modules is unfolded by clicking on it.
function renderTitles(root, frame) {
  for (const child of frame.inside.values()) {
    const text = shortened(child.title, 10, false, 260);
    const group = element("g", { class: "title" });
    const width = textWidth(text, 10);
    group.append(element("rect", { class: "ground", x: child.left + 5, y: child.top + 3, width: width + 6, height: 14 }));
    group.append(label(child.left + 8, child.top + 14, text, 10));
    group.append(element("title", {}, child.path));
    if (child.run) group.append(foldButton(child.run, child.left + 16 + width, child.top + 3));
    root.append(group);
    renderTitles(root, child);
  }
}

function foldButton(run, x, y) {
  const text = foldText(run), width = foldWidth(run);
  const button = element("g", { class: "fold", tabindex: 0, role: "button", "data-run": run.number, "aria-expanded": !run.folded },
    element("rect", { x, y, width, height: 14, rx: 7 }), label(x + 4, y + 11, text, 10, { "font-weight": 700 }));
  button.append(element("title", {}, run.folded ? `Show all of ${run.title}` : `Fold ${run.title}`));
  return button;
}

function groupsOf(net, layouts) {
  return [...new Set([...layouts].flatMap((l) => net.layouts[l]))].sort((a, b) => a - b);
}

function renderBox(net, one) {
  const { box, width, height } = one, left = one.cx - width / 2, top = one.cy - height / 2;
  const touched = groupsOf(net, new Set([...one.enters, ...one.leaves, ...one.members.flatMap((i) => (net.boxes[i].places || []).map((p) => p[2]))]));
  const group = element("g", { class: `box ${box.kind}`, tabindex: 0, role: "button", "data-box": one.id, "data-groups": ` ${touched.join(" ")} ` });
  const makes = box.kind === "weight" && one.leaves.size ? net.groups[net.layouts[Math.min(...one.leaves)].at(-1)] : null;
  const frame = element("rect", { class: "card", x: left, y: top, width, height, rx: one.sign ? width / 2 : 5 });
  group.append(frame);
  if (makes) {
    frame.style.stroke = makes.ink[0];
    const tint = element("rect", { class: "tint", x: left, y: top, width, height, rx: 5, fill: makes.ink[0] });
    group.append(tint);
  }
  if (one.sign) group.append(label(one.cx - textWidth(box.title, 14, true) / 2, one.cy + 5, box.title, 14, { "font-weight": 700 }));
  else renderLines(group, net, one, top);
  group.append(element("title", {}, box.module || box.title));
  return group;
}

function renderLines(group, net, one, top) {
  let y = top + 4;
  const middle = (width) => one.cx - width / 2;
  for (const line of one.above) { y += 12; renderMarks(group, net, line, middle(lineWidth(line)), y - 3.5); }
  y += 15;
  const titleX = middle(textWidth(one.text, TITLE, true) + one.button);
  group.append(label(titleX, y - 3.5, one.text, TITLE, { "font-weight": 700 }));
  if (one.run) {
    group.append(foldButton(one.run, titleX + textWidth(one.text, TITLE, true) + 6, y - 14));
  }
  if (one.small) { y += 12; group.append(label(middle(textWidth(one.small, SMALL)), y - 3.5, one.small, SMALL, { class: "small" })); }
  for (const line of one.below) { y += 12; renderMarks(group, net, line, middle(lineWidth(line)), y - 3.5); }
}

function renderMarks(group, net, line, x, y) {
  if (line.mark) {
    group.append(label(x, y, line.mark, SMALL, { "font-weight": 700 }));
    x += textWidth(line.mark, SMALL, true) + GAP;
  }
  for (const name of line.names) {
    const [colour] = net.groups[name.groups[0]].ink;
    const mark = element("g", { class: name.strong ? "mark" : "mark pale", "data-mark": name.groups.join(" "), role: "button", tabindex: -1 });
    mark.append(element("rect", { x, y: y - SWATCH, width: SWATCH, height: SWATCH, rx: 1, stroke: colour, fill: name.strong ? colour : "none" }));
    mark.append(label(x + SWATCH + 3, y, name.text, SMALL));
    group.append(mark);
    x += SWATCH + 3 + textWidth(name.text, SMALL) + GAP + 1;
  }
}

function renderWire(net, wire, points) {
  const groups = groupsOf(net, wire.layouts);
  const path = wirePath(points);
  const made = element("g", { class: groups.length ? "wire" : "wire pinned", "data-groups": ` ${groups.join(" ")} `, "data-tail": wire.tail, "data-head": wire.head });
  const strokes = new Map();
  for (const g of groups) strokes.set(net.groups[g].ink.join(), net.groups[g]);
  const inks = [...strokes.values()].slice(0, 4);
  inks.forEach((group, i) => {
    const outer = inks.length - 1 - i;
    const line = element("path", { d: path, fill: "none", stroke: group.ink[0], "stroke-width": (group.selected ? 2.2 : 1.5) + 2 * outer });
    if (!outer && group.ink[1]) line.setAttribute("stroke-dasharray", group.ink[1]);
    if (!group.selected) line.setAttribute("stroke-opacity", 0.45);
    made.append(line);
  });
  if (!inks.length) made.append(element("path", { d: path, fill: "none", class: "grey" }));
  const [x, y] = points[points.length - 1];
  const head = element("path", { class: "head", d: `M${x},${y}l-3.4,-7h6.8z` });
  if (inks.length) head.style.fill = inks[0].ink[0];
  made.append(head);
  const words = groups.length ? foldNames(groups.map((g) => net.groups[g].name)).join(", ") : (wire.reasons || []).map((r) => `pinned by ${r}`).join(", ") || "no group lives here";
  made.append(element("title", {}, words));
  return made;
}

// A smooth way through points, downward at each of them; with rounded corners where it runs along lanes.
function wirePath(points) {
  const at = (p) => p.corner || p;
  const [first] = points;
  let path = `M${pair(first)}`;
  for (let i = 1; i < points.length; i += 1) {
    const p = at(points[i - 1]), q = at(points[i]);
    if (points[i].corner) {
      const after = at(points[i + 1]);
      path += `L${pair(toward(q, p))}Q${pair(q)} ${pair(toward(q, after))}`;
    } else if (points[i - 1].corner) {
      path += `L${pair(q)}`;
    } else {
      const half = (p[1] + q[1]) / 2;
      path += `C${pair([p[0], half])} ${pair([q[0], half])} ${pair(q)}`;
    }
  }
  return path;
}

function toward(corner, other) {
  const dx = other[0] - corner[0], dy = other[1] - corner[1], length = Math.hypot(dx, dy) || 1;
  const share = Math.min(8, length / 2) / length;
  return [corner[0] + dx * share, corner[1] + dy * share];
}

function pair([x, y]) {
  return `${x.toFixed(1)},${y.toFixed(1)}`;
}
