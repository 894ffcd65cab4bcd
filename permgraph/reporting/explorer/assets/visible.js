// From the whole network and what is folded to what is visible: boxes, wires, frames.

// Box → the box that stands for it: in a folded run of equal modules, that of the first module.
function representatives(net, folded) {
  const stands = net.boxes.map((_, i) => i);
  net.runs.forEach((run, r) => {
    if (!folded.has(r)) return;
    const first = new Map();
    run.copies.forEach((copy) => copy.forEach((box, k) => first.set(box, run.copies[0][k])));
    stands.forEach((box, i) => { if (first.has(box)) stands[i] = first.get(box); });
  });
  return stands;
}

// Whether a wire leads from one copy of a folded run to another copy of it.
function betweenCopies(net, folded) {
  const copyOf = net.runs.map((run, r) => {
    const found = new Map();
    if (folded.has(r)) run.copies.forEach((copy, k) => copy.forEach((box) => found.set(box, k)));
    return found;
  });
  return (tail, head) => copyOf.some(
    (of) => of.has(tail) && of.has(head) && of.get(tail) !== of.get(head));
}

function visibleGraph(net, folded) {
  const stands = representatives(net, folded), between = betweenCopies(net, folded);
  const boxes = new Map();
  net.boxes.forEach((box, i) => {
    const at = stands[i];
    if (!boxes.has(at)) {
      boxes.set(at, { id: at, box: net.boxes[at], members: [],
        enters: new Set(), leaves: new Set(), takes: new Set(), gives: new Set() });
    }
    const shown = boxes.get(at);
    shown.members.push(i);
    for (const side of ["enters", "leaves", "takes", "gives"]) (box[side] || []).forEach((l) => shown[side].add(l));
  });
  const wires = new Map();
  for (const [tail, head, layouts, reasons] of net.wires) {
    if (between(tail, head) || stands[tail] === stands[head]) continue;
    const key = `${stands[tail]} ${stands[head]}`;
    if (!wires.has(key)) wires.set(key, { tail: stands[tail], head: stands[head], layouts: new Set(), reasons });
    layouts.forEach((l) => wires.get(key).layouts.add(l));
  }
  return { boxes, wires: [...wires.values()], stands };
}

// The tree of frames of some boxes. A frame around one box is that box under a longer name; one around one frame
// is a longer name for it.
function frameTree(shown, runs) {
  const root = { path: "", title: "", boxes: [], inside: new Map() };
  for (const one of shown) {
    let here = root;
    for (const path of one.box.frames || []) {
      if (!here.inside.has(path)) {
        const title = path.slice(here.path ? here.path.length + 1 : 0);
        here.inside.set(path, { path, title, boxes: [], inside: new Map() });
      }
      here = here.inside.get(path);
    }
    here.boxes.push(one);
    one.title = one.box.title;
  }
  simplify(root, runs);
  return root;
}

function simplify(frame, runs) {
  const kept = new Map();
  for (let child of frame.inside.values()) {
    let title = name(child, runs);
    while (!child.boxes.length && child.inside.size === 1 && !runs.has(child.path)) {
      [child] = child.inside.values();
      title = `${title}.${name(child, runs)}`;
    }
    child.title = title;
    child.run = runs.get(child.path);
    if (child.boxes.length === 1 && !child.inside.size) {
      const [only] = child.boxes;
      const own = only.box.kind === "weight" && only.box.module === child.path ? "" : only.box.title;
      only.title = [child.title, own].filter(Boolean).join(".");
      only.run = child.run;
      frame.boxes.push(only);
    } else {
      simplify(child, runs);
      kept.set(child.path, child);
    }
  }
  frame.inside = kept;
}

function name(frame, runs) {
  const run = runs.get(frame.path);
  return run && run.folded ? run.title : frame.title;
}
