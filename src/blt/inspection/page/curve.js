/** The curve of what a rule compares with θ, and θ as a line that can be dragged or moved with the keyboard. */

const LEFT = 40;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 14;
const STEP = 0.01; // nats per press of an arrow key
const MOST_ENDS = 0.2; // patch ends per pixel, above which they would be one grey area

/** Return the colours of the theme, by name, as a canvas reads them. */
export function coloursOf(element) {
  const probe = document.createElement("span");
  element.append(probe);
  const colours = {};
  for (const name of ["page", "ink", "quiet", "line", "even", "odd", "cool", "hot", "curve", "theta", "card"]) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colours;
}

/** Return the range of a curve's axis: all scores, and the thresholds that must be in sight. */
export function rangeOf(scores, thresholds) {
  let low = 0;
  let high = 0.001;
  for (const score of [...scores, ...thresholds]) {
    if (!Number.isFinite(score)) continue;
    low = Math.min(low, score);
    high = Math.max(high, score);
  }
  return { low: low < 0 ? low * 1.05 : 0, high: high * 1.05 };
}

/** Draw the curve into a canvas of some width and height, in CSS pixels. */
export function drawCurve(context, { width, height, scores, length, ends, range, active, colours }) {
  const x = (byte) => LEFT + ((width - LEFT - RIGHT) * (byte + 0.5)) / length;
  const y = (value) => height - BOTTOM - ((height - TOP - BOTTOM) * (value - range.low)) / (range.high - range.low);
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of marksOf(range)) {
    context.fillStyle = colours.line;
    context.fillRect(LEFT, Math.round(y(value)), width - LEFT - RIGHT, 1);
    context.fillStyle = colours.quiet;
    context.fillText(String(value), LEFT - 6, y(value));
  }
  if (ends.reduce((sum, end) => sum + end, 0) < (width - LEFT - RIGHT) * MOST_ENDS) {
    context.fillStyle = colours.line;
    ends.forEach((end, byte) => end && context.fillRect(Math.round(x(byte)), TOP, 1, height - TOP - BOTTOM));
  }
  const points = pointsOf(scores, Math.max(Math.floor(width), 1), range).map(([byte, value]) => [x(byte), y(value)]);
  if (points.length) {
    context.beginPath();
    context.moveTo(points[0][0], y(Math.max(range.low, 0)));
    for (const point of points) context.lineTo(...point);
    context.lineTo(points.at(-1)[0], y(Math.max(range.low, 0)));
    context.globalAlpha = 0.15;
    context.fillStyle = colours.curve;
    context.fill();
    context.globalAlpha = 1;
    context.beginPath();
    for (const point of points) context.lineTo(...point);
    context.strokeStyle = colours.curve;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
  }
  if (active !== null && active < length) {
    context.fillStyle = colours.ink;
    context.fillRect(x(active) - 0.5, TOP, 1, height - TOP - BOTTOM);
  }
}

/** Return the points of a curve; where there are more bytes than pixels, each stands for the highest of several. */
function pointsOf(scores, most, range) {
  const step = Math.ceil(scores.length / most) || 1;
  const points = [];
  for (let start = 0; start < scores.length; start += step) {
    let highest = range.low; // where a rule ends no patch at any threshold
    for (let byte = start; byte < Math.min(start + step, scores.length); byte += 1) {
      highest = Math.max(highest, scores[byte]);
    }
    points.push([start + (Math.min(step, scores.length - start) - 1) / 2, highest]);
  }
  return points;
}

/** Return round values within a range, some three of them. */
function marksOf({ low, high }) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((each) => (high - low) / each <= 4) ?? 20;
  const marks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) marks.push(Number(value.toFixed(1)));
  return marks;
}

export class Curve {
  #model = null;

  /**
   * @param element holds a canvas and the slider
   * @param onThreshold called with θ while it is moved
   * @param onByte called with the byte that is clicked
   */
  constructor(element, { onThreshold, onByte }) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.slider = element.querySelector("[role=slider]");
    this.onThreshold = onThreshold;
    this.slider.addEventListener("keydown", (event) => this.#press(event));
    this.slider.addEventListener("pointerdown", (event) => this.#grab(event));
    this.canvas.addEventListener("click", (event) => this.#click(event, onByte));
    new ResizeObserver(() => this.redraw()).observe(element);
  }

  /** Show `{scores, length, ends, range, active, threshold, label, says}`; scores are null where a rule has no θ. */
  draw(model) {
    this.#model = model;
    this.element.hidden = !model.scores;
    if (!model.scores) return;
    this.canvas.setAttribute("aria-label", model.label);
    const { range, threshold } = model;
    this.slider.setAttribute("aria-valuemin", range.low.toFixed(2));
    this.slider.setAttribute("aria-valuemax", range.high.toFixed(2));
    this.slider.setAttribute("aria-valuenow", threshold.toFixed(2));
    this.slider.setAttribute("aria-valuetext", model.says);
    this.slider.querySelector(".grip").textContent = `θ ${threshold.toFixed(2)}`;
    this.redraw();
  }

  /** Draw again, for instance in another size or in other colours. */
  redraw() {
    if (!this.#model?.scores) return;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    drawCurve(context, { ...this.#model, width, height, colours: coloursOf(this.element) });
    const { range, threshold } = this.#model;
    const share = (threshold - range.low) / (range.high - range.low);
    const top = height - BOTTOM - (height - TOP - BOTTOM) * Math.min(Math.max(share, 0), 1);
    this.slider.style.setProperty("--top", `${top.toFixed(1)}px`);
    this.slider.classList.toggle("low", top < 24); // then its label hangs below the line
  }

  #set(threshold) {
    const { low, high } = this.#model.range;
    this.onThreshold(Number(Math.min(Math.max(threshold, low), high).toFixed(4)));
  }

  #press(event) {
    const now = this.#model.threshold;
    const { low, high } = this.#model.range;
    const target = {
      ArrowUp: now + STEP,
      ArrowRight: now + STEP,
      ArrowDown: now - STEP,
      ArrowLeft: now - STEP,
      PageUp: now + 10 * STEP,
      PageDown: now - 10 * STEP,
      Home: low,
      End: high,
    }[event.key];
    if (target === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#set(target);
  }

  #grab(event) {
    event.preventDefault();
    this.slider.focus();
    this.slider.setPointerCapture(event.pointerId);
    const drag = (moved) => {
      const { top, height } = this.canvas.getBoundingClientRect();
      const { low, high } = this.#model.range;
      const share = (height - BOTTOM - (moved.clientY - top)) / (height - TOP - BOTTOM);
      this.#set(low + share * (high - low));
    };
    const release = () => {
      this.slider.removeEventListener("pointermove", drag);
      this.slider.classList.remove("dragged");
      this.#set(this.#model.threshold); // once more, so that all of the page follows
    };
    this.slider.classList.add("dragged");
    this.slider.addEventListener("pointermove", drag);
    this.slider.addEventListener("lostpointercapture", release, { once: true });
  }

  #click(event, onByte) {
    const { left, width } = this.canvas.getBoundingClientRect();
    const { length } = this.#model;
    const byte = Math.floor((length * (event.clientX - left - LEFT)) / (width - LEFT - RIGHT));
    if (length && byte >= 0 && byte < length) onByte(byte);
  }
}
