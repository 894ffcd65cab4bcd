// Cards: what is written in a box, and how large it is. The same as in the drawing.

const TITLE = 11, SMALL = 9, PAD = 9, WIDEST = 230, SWATCH = 7, GAP = 4;

function textWidth(text, size, bold) {
  const widths = bold ? DATA.widths.bold : DATA.widths.regular;
  let sum = 0;
  for (const character of text) sum += widths[character] ?? (character > "\u2e80" ? 1000 : 700);
  return sum * size / 1000;
}

function shortened(text, size, bold, most = WIDEST) {
  if (textWidth(text, size, bold) <= most) return text;
  let keep = text.length;
  let short = text;
  while (keep > 1 && textWidth(short, size, bold) > most) {
    keep -= 1;
    short = `${text.slice(0, Math.ceil(keep / 2))}…${text.slice(text.length - Math.floor(keep / 2))}`;
  }
  return short;
}

// "ffn.0", "ffn.1", "ffn.2" → "ffn.0-2"; names that are not numbered stay.
function foldNames(names) {
  const families = new Map();
  for (const name of new Set(names)) {
    const parts = /^(.*?\.)(\d+)(.*)$/.exec(name);
    const key = parts ? `${parts[1]}\u0000${parts[3]}` : name;
    if (!families.has(key)) families.set(key, []);
    families.get(key).push(parts ? Number(parts[2]) : null);
  }
  return [...families].map(([key, numbers]) => {
    if (numbers[0] === null) return key;
    const [before, after] = key.split("\u0000");
    return before + ranges(numbers) + after;
  });
}

function ranges(numbers) {
  const runs = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    if (runs.length && n === runs[runs.length - 1][1] + 1) runs[runs.length - 1][1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(",");
}

// One line for each kind of layout: a mark, then the names of its groups, outer groups first.
function markLines(net, mark, layouts, moves) {
  const kinds = new Map();
  for (const l of [...layouts].sort((a, b) => a - b)) {
    const key = net.layouts[l].map((g) => net.groups[g].ink.join()).join(" ");
    if (!kinds.has(key)) kinds.set(key, []);
    kinds.get(key).push(l);
  }
  return [...kinds.values()].map((same) => {
    const moved = same.some((l) => moves.has(l));
    const columns = net.layouts[same[0]].map((_, k) => [...new Set(same.map((l) => net.layouts[l][k]))]);
    const names = columns.map((groups) => {
      const within = new Set(groups.map((g) => net.groups[g].within));
      const folded = foldNames(groups.map((g) => net.groups[g].name)).join(", ");
      const beside = columns.some((other) => [...within].every((w) => other.includes(w)));
      const text = beside ? `/${folded.slice(folded.lastIndexOf("/") + 1)}` : shortened(folded, SMALL, false, WIDEST - 40);
      return { groups, text, strong: moved && groups.some((g) => net.groups[g].selected) };
    });
    names.sort((a, b) => b.strong - a.strong);
    return { mark: names.some((n) => n.strong) ? mark : "", names };
  });
}

function lineWidth(line) {
  const names = line.names.reduce((sum, n) => sum + SWATCH + 3 + textWidth(n.text, SMALL) + GAP + 1, -GAP - 1);
  return names + (line.mark ? textWidth(line.mark, SMALL, true) + GAP : 0);
}

// A run of equal modules has a button: "× 12 ▸" unfolds it, "▾" folds it again.
function foldText(run) {
  return run.folded ? `× ${run.copies.length} ▸` : "▾";
}

function foldWidth(run) {
  return textWidth(foldText(run), 10, true) + 8;
}

// The card of a visible box: its lines and its size.
function makeCard(net, one) {
  const box = one.box;
  if (box.kind === "join" && box.title.length === 1) return Object.assign(one, { sign: true, width: 19, height: 19 });
  const weight = box.kind === "weight";
  one.above = weight && !box.through ? markLines(net, "P⁻¹", one.enters, one.takes) : [];
  one.below = weight ? markLines(net, "P", one.leaves, one.gives) : [];
  one.text = shortened(one.title, TITLE, true);
  one.button = one.run ? foldWidth(one.run) + 6 : 0;
  one.small = shortened(box.detail || "", SMALL, false);
  const widths = [textWidth(one.text, TITLE, true) + one.button, textWidth(one.small, SMALL),
    ...[...one.above, ...one.below].map(lineWidth)];
  one.width = Math.max(...widths) + 2 * PAD;
  one.height = 8 + 15 + (one.small ? 12 : 0) + 12 * (one.above.length + one.below.length);
  return one;
}
