// The heat map: one canvas, cells in cluster order, square zoom window. Smaller than a pixel, the nearest pair wins.
const LABEL_SPACING = 13,
  CELL_LIMIT = 64,
  BAND = 7;

class HeatMapPicture {
  constructor(canvas) {
    Object.assign(this, { canvas, hover: null, pinned: null, left: 0, top: 0, span: size });
    this.position = new Int32Array(size);
    order.forEach((relation, i) => (this.position[relation] = i));
    this.levels = new Uint8Array(size * size);
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++) this.levels[i * size + j] = i === j ? 255 : level(kl[at(order[i], order[j])]);
    this.restyle();
  }

  /** Read the colours of the theme and paint the cells again. */
  restyle() {
    this.colours = ramp();
    this.words = new Uint32Array(this.colours.map(([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0));
    this.style = Object.fromEntries(
      ["ink", "muted", "paper", "rule", "mark"].map((name) => [name, cssVariable(`--${name}`)]),
    );
    this.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const context = this.canvas.getContext("2d");
    context.font = this.font;
    this.longest = Math.max(...labels.map((text) => context.measureText(text.slice(0, 60)).width));
    this.cells = document.createElement("canvas");
    this.cells.width = this.cells.height = size;
    const image = new ImageData(size, size),
      words = new Uint32Array(image.data.buffer);
    for (let i = 0; i < words.length; i++) words[i] = this.words[this.levels[i]];
    this.cells.getContext("2d").putImageData(image, 0, 0);
    this.base = null;
    this.resize();
  }

  resize() {
    const frame = this.canvas.closest(".map"),
      aside = frame.querySelector("aside"),
      layout = getComputedStyle(frame);
    const beside = layout.flexDirection === "row" ? aside.offsetWidth + parseFloat(layout.columnGap) : 0;
    const width = frame.clientWidth - beside;
    if (this.base && this.room === width && this.ratio === devicePixelRatio) return;
    this.room = width;
    this.gutter = Math.round(Math.min(this.longest + BAND + 8, width * 0.26, 200));
    this.plot = Math.max(120, Math.min(width - this.gutter - 1, CELL_LIMIT * size, 940));
    this.ratio = devicePixelRatio;
    this.side = this.gutter + this.plot + 1;
    this.canvas.style.width = this.canvas.style.height = `${this.side}px`;
    this.canvas.width = this.canvas.height = Math.round(this.side * this.ratio);
    this.clipped = new Map();
    this.base = null;
    this.paint();
  }

  get cell() {
    return this.plot / this.span;
  }

  x(j) {
    return this.gutter + (j - this.left) * this.cell;
  }

  y(i) {
    return this.gutter + (i - this.top) * this.cell;
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
    });
  }

  paint() {
    const context = this.canvas.getContext("2d");
    this.base ||= this.paintBase();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.paintLabels(context);
    this.paintPointer(context);
  }

  paintBase() {
    const base = document.createElement("canvas");
    base.width = base.height = this.canvas.width;
    const context = base.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.save();
    context.beginPath();
    context.rect(this.gutter, this.gutter, this.plot, this.plot);
    context.clip();
    if (this.cell * this.ratio >= 1) {
      context.imageSmoothingEnabled = false;
      context.drawImage(
        this.cells,
        this.left,
        this.top,
        this.span,
        this.span,
        this.gutter,
        this.gutter,
        this.plot,
        this.plot,
      );
    } else context.drawImage(this.pooled(), this.gutter, this.gutter, this.plot, this.plot);
    this.paintGrid(context);
    this.paintWeak(context);
    this.paintNumbers(context);
    context.restore();
    return base;
  }

  /** The window at one value per device pixel: the nearest pair of all that fall on it. */
  pooled() {
    const pixels = Math.round(this.plot * this.ratio),
      step = this.span / pixels;
    const image = new ImageData(pixels, pixels),
      words = new Uint32Array(image.data.buffer);
    const from = (start, p) => Math.floor(start + p * step);
    for (let y = 0; y < pixels; y++)
      for (let x = 0; x < pixels; x++) {
        let nearest = 255;
        const lastRow = Math.min(size, Math.ceil(this.top + (y + 1) * step));
        const lastColumn = Math.min(size, Math.ceil(this.left + (x + 1) * step));
        for (let i = from(this.top, y); i < lastRow; i++)
          for (let j = from(this.left, x); j < lastColumn; j++) {
            const found = this.levels[i * size + j];
            if (found < nearest) nearest = found;
          }
        words[y * pixels + x] = this.words[nearest];
      }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = pixels;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  *visible(start) {
    for (let i = Math.floor(start); i < Math.min(size, Math.ceil(start + this.span)); i++) yield i;
  }

  paintGrid(context) {
    const { cell, style } = this;
    context.fillStyle = style.rule;
    for (const i of this.visible(this.top))
      context.fillRect(this.x(i), this.y(i), Math.max(cell, 1), Math.max(cell, 1));
    if (cell < 9) return;
    context.fillStyle = style.paper;
    for (const i of this.visible(this.top)) context.fillRect(this.gutter, this.y(i) - 0.5, this.plot, 1);
    for (const j of this.visible(this.left)) context.fillRect(this.x(j) - 0.5, this.gutter, 1, this.plot);
  }

  /** The numbers themselves, where a cell has room for one. */
  paintNumbers(context) {
    const { cell } = this;
    if (cell < 34) return;
    Object.assign(context, { textAlign: "center", textBaseline: "middle", font: this.font });
    for (const i of this.visible(this.top))
      for (const j of this.visible(this.left)) {
        if (i === j) continue;
        const [r, g, b] = this.colours[this.levels[i * size + j]];
        const x = this.x(j) + cell / 2,
          y = this.y(i) + cell / 2;
        context.fillStyle = `rgb(${r} ${g} ${b})`;
        if (isWeak(order[i]) || isWeak(order[j])) context.fillRect(x - 15, y - 8, 30, 16);
        context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#1b1d22" : "#f7f7f4";
        context.fillText(nats(kl[at(order[i], order[j])]), x, y + 0.5);
      }
  }

  /** Hatch the rows and columns of relations with too few facts. */
  paintWeak(context) {
    const strips = new Path2D();
    for (const i of this.visible(this.top))
      if (isWeak(order[i])) strips.rect(this.gutter, this.y(i), this.plot, this.cell);
    for (const j of this.visible(this.left))
      if (isWeak(order[j])) strips.rect(this.x(j), this.gutter, this.cell, this.plot);
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(6 * this.ratio);
    const pen = tile.getContext("2d");
    pen.scale(this.ratio, this.ratio);
    pen.strokeStyle = this.style.paper;
    pen.lineWidth = 1;
    pen.stroke(new Path2D("M-1 7 L7 -1 M-1 1 L1 -1 M5 7 L7 5"));
    const pattern = context.createPattern(tile, "repeat");
    pattern.setTransform(new DOMMatrix().scale(1 / this.ratio));
    context.fillStyle = pattern;
    context.fill(strips);
  }

  /** The text cut in its middle to `width` pixels. */
  clip(context, text, width) {
    const key = `${width}|${text}`;
    if (!this.clipped.has(key)) {
      const letters = Array.from(text);
      let short = text,
        keep = Math.ceil((letters.length * width) / context.measureText(text).width);
      for (keep = Math.min(letters.length - 1, keep + 2); context.measureText(short).width > width && keep > 2; keep--)
        short = [...letters.slice(0, Math.ceil(keep / 2)), "…", ...letters.slice(-Math.floor(keep / 2))].join("");
      this.clipped.set(key, short);
    }
    return this.clipped.get(key);
  }

  /** As many names as there is room for, and always those of the pairs pointed at and pinned. */
  paintLabels(context) {
    const every = Math.ceil(LABEL_SPACING / this.cell),
      shown = [this.hover, this.pinned].filter(Boolean);
    for (const [start, isRow] of [
      [this.top, true],
      [this.left, false],
    ]) {
      const middle = (i) => (i + 0.5 - start) * this.cell;
      const inside = (i) => middle(i) >= 0 && middle(i) <= this.plot;
      const named = [...new Set(shown.map((pair) => this.position[pair[isRow ? 0 : 1]]))].filter(inside);
      const taken = [];
      const free = (i) =>
        taken.every((other) => Math.abs(middle(i) - middle(other)) >= Math.min(LABEL_SPACING, this.cell * every) - 0.5);
      for (const i of [...named, ...Array.from(this.visible(start)).filter((i) => i % every === 0 && inside(i))]) {
        if (!free(i)) continue;
        taken.push(i);
        this.paintLabel(context, order[i], middle(i), isRow, named.includes(i) ? this.style.ink : this.style.muted);
      }
      for (const i of this.visible(start)) if (inside(i) && isWeak(order[i])) this.paintMark(context, middle(i), isRow);
    }
  }

  paintMark(context, middle, isRow) {
    const length = Math.max(2, Math.min(this.cell - 2, 9)),
      along = this.gutter + middle - length / 2;
    context.fillStyle = this.style.mark;
    if (isRow) context.fillRect(this.gutter - 5, along, 3, length);
    else context.fillRect(along, this.gutter - 5, length, 3);
  }

  paintLabel(context, relation, middle, isRow, colour) {
    const room = this.gutter - BAND - 2;
    context.save();
    if (isRow) context.translate(this.gutter - BAND, this.gutter + middle);
    else {
      context.translate(this.gutter + middle, this.gutter - BAND);
      context.rotate(-Math.PI / 2);
    }
    Object.assign(context, { font: this.font, textAlign: isRow ? "right" : "left", textBaseline: "middle" });
    context.fillStyle = colour;
    context.fillText(this.clip(context, labels[relation], room), 0, 0.5, room);
    context.restore();
  }

  paintPointer(context) {
    const { ink, paper } = this.style;
    for (const [pair, width] of [
      [this.pinned, 2],
      [this.hover, 1.25],
    ]) {
      if (!pair) continue;
      const i = this.position[pair[0]],
        j = this.position[pair[1]];
      const box = Math.max(this.cell, 7),
        middleY = (i + 0.5 - this.top) * this.cell,
        middleX = (j + 0.5 - this.left) * this.cell;
      if (middleX < 0 || middleY < 0 || middleX > this.plot || middleY > this.plot) continue;
      context.strokeStyle = paper;
      context.lineWidth = width + 2;
      const outline = [this.gutter + middleX - box / 2, this.gutter + middleY - box / 2, box, box];
      context.strokeRect(...outline);
      context.strokeStyle = ink;
      context.lineWidth = width;
      context.strokeRect(...outline);
    }
  }
}
