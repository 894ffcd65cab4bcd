// Pan by dragging, zoom by the wheel, by pinching and by keys.

class Viewport {
  constructor(svg) {
    this.svg = svg;
    this.scale = 1;
    this.x = this.y = 0;
    this.pointers = new Map();
    svg.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom(Math.exp(-e.deltaY * 0.0015), e.offsetX, e.offsetY); }, { passive: false });
    svg.addEventListener("pointerdown", (e) => { this.pointers.set(e.pointerId, [e.clientX, e.clientY]); this.moved = 0; });
    svg.addEventListener("pointermove", (e) => this.drag(e));
    for (const kind of ["pointerup", "pointercancel", "pointerleave"]) svg.addEventListener(kind, (e) => this.pointers.delete(e.pointerId));
  }

  show(root, width, height) {
    this.root = root;
    this.size = [width, height];
    this.apply();
  }

  apply() {
    this.root.setAttribute("transform", `translate(${this.x} ${this.y}) scale(${this.scale})`);
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const now = [event.clientX, event.clientY];
    this.pointers.set(event.pointerId, now);
    this.moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    if (others.length) {
      const [other] = others;
      const gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      const frame = this.svg.getBoundingClientRect();
      this.zoom(gap(now) / (gap(before) || 1), (now[0] + other[0]) / 2 - frame.left, (now[1] + other[1]) / 2 - frame.top);
    } else {
      this.x += now[0] - before[0];
      this.y += now[1] - before[1];
      this.apply();
    }
  }

  // Whether the pointer was dragged since it went down: then its click is none.
  dragged() {
    return this.moved > 6;
  }

  zoom(by, x = this.svg.clientWidth / 2, y = this.svg.clientHeight / 2) {
    const scale = Math.min(6, Math.max(0.02, this.scale * by));
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.apply();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.apply();
  }

  fit() {
    const [width, height] = this.size, { clientWidth, clientHeight } = this.svg;
    this.scale = Math.min(1.6, (clientWidth - 24) / width, (clientHeight - 24) / height);
    this.x = (clientWidth - width * this.scale) / 2;
    this.y = Math.max(12, (clientHeight - height * this.scale) / 2);
    this.apply();
  }

  // Bring a point of the drawing to the middle, large enough to read.
  centre(x, y) {
    this.scale = Math.max(this.scale, 0.8);
    this.x = this.svg.clientWidth / 2 - x * this.scale;
    this.y = this.svg.clientHeight / 2 - y * this.scale;
    this.apply();
  }

  // Keep a point of the drawing where it is on the screen while the drawing changes around it.
  at(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  hold(x, y, [screenX, screenY]) {
    this.x = screenX - x * this.scale;
    this.y = screenY - y * this.scale;
    this.apply();
  }
}
