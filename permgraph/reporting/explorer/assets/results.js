// Results of a matching: numbers of a group, heat maps, and curves over the depth of the network.

function number(value, digits = 3) {
  return value === undefined || value === null ? "" : value.toFixed(digits);
}

function groupResults(net, group) {
  const row = net.results.groups[group.name];
  if (!row) return html("p", {}, "The permutations do not move this group.");
  const made = [html("h3", {}, "Matching"), facts([
    ["correlation before", number(row.identity)],
    ["correlation after", number(row.correlation)],
    ["shuffled", number(row.shuffled)],
    ["moved", `${number(row.moved, 1)} %`],
    ["dead units", row.dead_a || row.dead_b ? `${row.dead_a} in A, ${row.dead_b} in B` : ""],
  ]), (row.warnings || []).map((text) => html("p", { class: "warning" }, text))];
  for (const [title, map] of Object.entries(net.results.maps[group.name] || {})) {
    made.push(html("figure", {}, heatMap(map), html("figcaption", {}, `${title}; yellow is ${map.high}`)));
  }
  return made;
}

// A map is {size, values}: values are bytes in base64, row by row; 0 is the lowest.
function heatMap({ size, values, high }) {
  const canvas = html("canvas", { width: size, height: size, class: "map", role: "img", "aria-label": `heat map, from 0 to ${high}` });
  const bytes = Uint8Array.from(atob(values), (c) => c.charCodeAt(0));
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  bytes.forEach((value, i) => image.data.set([...viridis(value / 255), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

// Viridis, read off at five places (Smith and van der Walt, CC0).
function viridis(t) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = Math.min(3.999, t * 4), i = Math.floor(at), s = at - i;
  return stops[i].map((a, k) => Math.round(a + s * (stops[i + 1][k] - a)));
}

function resultsOverview(net, onSelect) {
  const roles = new Map();
  net.groups.forEach((group, g) => {
    const row = net.results.groups[group.name];
    if (!row) return;
    if (!roles.has(group.role)) roles.set(group.role, []);
    roles.get(group.role).push([g, row]);
  });
  const charts = [...roles].map(([role, rows]) => html("figure", {},
    curves(net, rows, onSelect), html("figcaption", {}, `${role}: correlation after (line), before (dashed); bars: moved`)));
  return html("section", { class: "results" }, html("h3", {}, "Matching, by depth"), charts);
}

function curves(net, rows, onSelect) {
  const width = 280, height = 90, left = 26, low = 74;
  const x = (i) => left + (i + 0.5) * (width - left - 4) / rows.length;
  const y = (value) => low - 64 * Math.max(-0.05, Math.min(1, value));
  const made = element("svg", { viewBox: `0 0 ${width} ${height}`, class: "curves" });
  for (const value of [0, 0.5, 1]) {
    made.append(element("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }), label(4, y(value) + 3, `${value}`, 9));
  }
  const bar = Math.min(14, 0.6 * (width - left) / rows.length);
  rows.forEach(([g, row], i) => {
    const share = (row.moved || 0) / 100;
    const made_ = element("rect", { class: "bar", x: x(i) - bar / 2, y: y(share), width: bar, height: low - y(share) });
    made_.append(element("title", {}, `${net.groups[g].name}: ${number(row.moved, 1)} % moved, correlation ${number(row.correlation)}`));
    made_.addEventListener("click", () => onSelect([g]));
    made.append(made_);
  });
  for (const [key, dash] of [["identity", "4 3"], ["correlation", ""]]) {
    const points = rows.map(([, row], i) => [x(i), row[key]]).filter(([, v]) => v !== undefined && v !== null).map(([px, v]) => `${px.toFixed(1)},${y(v).toFixed(1)}`);
    if (!points.length) continue;
    const line = element("polyline", { points: points.join(" "), fill: "none", class: "curve", "stroke-dasharray": dash });
    line.style.stroke = net.groups[rows[0][0]].ink[0];
    made.append(line);
    if (points.length === 1) made.append(element("circle", { cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 2.5, fill: net.groups[rows[0][0]].ink[0] }));
  }
  return made;
}
