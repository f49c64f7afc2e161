// What people do with the heat map: point, pin, zoom, drag, and the same from the keyboard.
const SMALLEST_SPAN = 5;

class HeatMap extends HeatMapPicture {
  constructor(canvas, { onHover, onPin }) {
    super(canvas);
    Object.assign(this, { onHover, onPin });
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.closest(".map"));
  }

  /** Relations (a, b) under a point of the page, or null. */
  pick(event) {
    const box = this.canvas.getBoundingClientRect();
    const j = Math.floor((event.clientX - box.left - this.gutter) / this.cell + this.left);
    const i = Math.floor((event.clientY - box.top - this.gutter) / this.cell + this.top);
    const inside = (k, from) => k >= Math.floor(from) && k < from + this.span && k >= 0 && k < size;
    const seen = event.clientX - box.left >= this.gutter && event.clientY - box.top >= this.gutter;
    return seen && inside(i, this.top) && inside(j, this.left) ? [order[i], order[j]] : null;
  }

  /** Show `span` cells a side, keeping the cell at fraction (fx, fy) of the window where it is. */
  zoom(factor, fx = 0.5, fy = 0.5) {
    const span = Math.min(size, Math.max(Math.min(size, SMALLEST_SPAN), this.span * factor));
    this.move(this.left + (this.span - span) * fx, this.top + (this.span - span) * fy, span);
  }

  /** Zoom on the pinned pair where the window shows it, else on the middle. */
  zoomPinned(factor) {
    const inside = (v) => v >= 0 && v <= 1;
    const [a, b] = this.pinned || [order[0], order[0]];
    const fx = (this.position[b] + 0.5 - this.left) / this.span,
      fy = (this.position[a] + 0.5 - this.top) / this.span;
    this.zoom(factor, ...(this.pinned && inside(fx) && inside(fy) ? [fx, fy] : []));
  }

  move(left, top, span = this.span) {
    const clamp = (v) => Math.min(size - span, Math.max(0, v));
    Object.assign(this, { span, left: clamp(left), top: clamp(top), base: null });
    this.canvas.style.touchAction = span < size ? "none" : "pan-y pinch-zoom";
    this.canvas.classList.toggle("zoomed", span < size);
    this.draw();
  }

  /** Pin a pair and bring it into the window. */
  pin(a, b) {
    this.pinned = [a, b];
    const i = this.position[a],
      j = this.position[b];
    const outside = (k, from) => k < from || k + 1 > from + this.span;
    if (outside(i, this.top) || outside(j, this.left)) this.move(j - this.span / 2, i - this.span / 2);
    this.draw();
  }

  setHover(pair, event = null) {
    this.hover = pair;
    this.onHover(pair, event);
    this.draw();
  }

  listen() {
    const { canvas } = this;
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      drag = { x: event.clientX, y: event.clientY, left: this.left, top: this.top, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag && (drag.moved || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4)) {
        drag.moved = true;
        this.setHover(null);
        this.move(drag.left - (event.clientX - drag.x) / this.cell, drag.top - (event.clientY - drag.y) / this.cell);
      } else if (event.pointerType !== "touch") this.setHover(this.pick(event), event);
    });
    canvas.addEventListener("pointerup", (event) => {
      const pair = drag && !drag.moved ? this.pick(event) : null;
      drag = null;
      if (pair && pair[0] !== pair[1]) this.onPin(...pair);
    });
    for (const name of ["pointercancel", "pointerleave"])
      canvas.addEventListener(name, () => ((drag = null), this.setHover(null)));
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        const box = canvas.getBoundingClientRect(),
          part = (v) => Math.min(1, Math.max(0, (v - this.gutter) / this.plot));
        this.zoom(Math.exp(event.deltaY / 300), part(event.clientX - box.left), part(event.clientY - box.top));
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.setHover(null));
  }

  key(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      const [a, b] = this.hover || this.pinned || [order[Math.floor(this.top)], order[Math.floor(this.left)]];
      const bound = (k) => Math.min(size - 1, Math.max(0, k));
      const i = bound(this.position[a] + steps[event.key][0]),
        j = bound(this.position[b] + steps[event.key][1]);
      this.move(
        Math.min(j, Math.max(this.left, j + 1 - this.span)),
        Math.min(i, Math.max(this.top, i + 1 - this.span)),
      );
      this.setHover([order[i], order[j]]);
    } else if (event.key === "Enter" && this.hover && this.hover[0] !== this.hover[1]) this.onPin(...this.hover);
    else if (event.key === "+" || event.key === "=") this.zoomPinned(1 / 1.5);
    else if (event.key === "-") this.zoomPinned(1.5);
    else if (event.key === "Escape" || event.key === "0") this.zoom(size);
    else return;
    event.preventDefault();
  }
}
