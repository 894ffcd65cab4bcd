// The panel: what is selected, in words. Built from text nodes alone.

function html(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else made.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) made.append(child);
  return made;
}

function facts(rows) {
  return html("dl", {}, rows.filter(([, value]) => value !== "" && value !== undefined && value !== null)
    .map(([key, value]) => [html("dt", {}, key), html("dd", {}, value)]));
}

function groupButton(net, g, onSelect) {
  const group = net.groups[g];
  const swatch = html("span", { class: "swatch" });
  swatch.style.background = group.selected ? group.ink[0] : "transparent";
  swatch.style.borderColor = group.ink[0];
  return html("button", { class: "link", "data-group": g, onclick: () => onSelect([g]) }, swatch, group.name);
}

function overview(net, onSelect) {
  const power = `10^${Math.round(net.log10_order).toLocaleString("en")}`;
  const rows = new Map();
  net.groups.forEach((group, g) => {
    const key = `${group.ink.join()} ${group.role} ${group.symmetry}`;
    if (!rows.has(key)) rows.set(key, []);
    rows.get(key).push(g);
  });
  const lines = [...rows.values()].map((groups) => {
    const [first] = groups, group = net.groups[first];
    const button = groupButton(net, first, () => onSelect(groups));
    button.lastChild.textContent = foldNames(groups.map((g) => net.groups[g].name)).join(", ");
    return html("tr", {}, html("td", {}, button), html("td", {}, group.symmetry), html("td", {}, groups.length > 1 ? `× ${groups.length}` : ""));
  });
  return [
    html("h2", {}, net.model),
    html("p", {}, `${net.counts}: ${power} permutations keep the function. An elementary group is one set of units in any order; a composite one, all that lives within an outermost.`),
    net.selection === null ? null : html("p", {}, `The plan moves ${net.selection}; the rest is pale.`),
    html("table", {}, lines),
    net.unused.length ? html("p", {}, `Not read by the network: ${net.unused.slice(0, 8).join(", ")}${net.unused.length > 8 ? " …" : ""}`) : null,
    net.results ? resultsOverview(net, onSelect) : null,
  ];
}

function groupsPanel(net, groups, onSelect, onTensor) {
  if (groups.length > 1) {
    return [html("h2", {}, foldNames(groups.map((g) => net.groups[g].name)).join(", ")),
      html("p", {}, `${groups.length} elementary groups.`),
      html("ul", { class: "plain" }, groups.slice(0, 400).map((g) => html("li", {}, groupButton(net, g, onSelect), ` ${net.groups[g].symmetry}`)))];
  }
  const [g] = groups, group = net.groups[g];
  const inner = net.groups.map((_, i) => i).filter((i) => net.groups[i].within === g);
  return [
    html("h2", {}, group.name),
    facts([
      ["symmetry", group.symmetry],
      ["units", group.copies > 1 ? `${group.copies} × ${group.size}` : `${group.size}`],
      ["role", group.role],
      ["made by", group.module],
      ["the plan", net.selection === null ? "" : group.selected ? "moves it" : "leaves it in order"],
      ["seen at", group.probes.join("; ")],
    ]),
    group.within === null ? null : html("p", {}, "lives within ", groupButton(net, group.within, onSelect)),
    inner.length ? html("p", {}, "holds ", inner.map((i) => groupButton(net, i, onSelect))) : null,
    net.results ? groupResults(net, group) : null,
    html("h3", {}, `${group.places.length} places`),
    html("ul", { class: "plain places" }, group.places.slice(0, 400).map(([tensor, axis, side]) =>
      html("li", { class: side }, html("button", { class: "link", onclick: () => onTensor(tensor) }, `${tensor}[${axis}]`), html("small", {}, ` ${side}`)))),
  ];
}

function boxPanel(net, i, copies, onSelect) {
  const box = net.boxes[i];
  const rows = (box.tensors || []).map(([tensor, shape]) => html("div", { class: "tensor" },
    html("h3", {}, tensor), html("p", {}, shape.length ? shape.join(" × ") : "a number"),
    html("ul", { class: "plain" }, shape.map((size, axis) => axisLine(net, box, tensor, axis, size, onSelect)))));
  return [
    html("h2", {}, box.module || box.title),
    facts([["what", box.detail || box.op], ["op", box.op], ["stands for", copies > 1 ? `${copies} equal ones` : ""]]),
    rows,
  ];
}

function axisLine(net, box, tensor, axis, size, onSelect) {
  const groups = [...new Set((box.places || []).filter(([t, a]) => t === tensor && a === axis).flatMap(([, , l]) => net.layouts[l]))];
  const pins = (box.pins || []).filter(([t, a]) => t === tensor && a === axis);
  return html("li", {}, `[${axis}] ${size}: `,
    groups.map((g) => groupButton(net, g, onSelect)),
    pins.map(([, , count, reason]) => html("span", { class: "pin" }, `${count} pinned by ${reason}`)),
    !groups.length && !pins.length ? html("span", { class: "pin" }, "no group lives here") : null);
}
