/** The page as a PNG: for each view its rule, its figures, its curve and the text in patches. */

import { coloursOf, drawCurve, rangeOf } from "./curve.js";
import { glyphsOf } from "./glyphs.js";

const WIDTH = 1200;
const MARGIN = 32;
const CURVE_HEIGHT = 150;
const LINE = 52;
const MAX_HEIGHT = 7000; // of a picture, in CSS pixels; what is below is left out, and it says so
const SCALE = 2;
const FONT = '18px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace';

/** Return a PNG of some panes, as a Blob. */
export function pictureOf(panes) {
  const measure = document.createElement("canvas").getContext("2d");
  measure.font = FONT;
  const parts = panes.map((pane) => partOf(pane, measure));
  const wanted = parts.reduce((sum, part) => sum + part.height, MARGIN);
  const height = Math.min(wanted, MAX_HEIGHT);
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH * SCALE;
  canvas.height = height * SCALE;
  const context = canvas.getContext("2d");
  context.scale(SCALE, SCALE);
  const colours = coloursOf(document.body);
  context.fillStyle = colours.page;
  context.fillRect(0, 0, WIDTH, height);
  let top = MARGIN;
  for (const part of parts) {
    drawPart(context, part, top, colours);
    top += part.height;
  }
  if (wanted > height) {
    context.fillStyle = colours.page;
    context.fillRect(0, height - 36, WIDTH, 36);
    context.fillStyle = colours.quiet;
    context.font = "14px system-ui, sans-serif";
    context.textAlign = "left";
    context.fillText("The rest of the text is left out.", MARGIN, height - 18);
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Lay one pane out. */
function partOf(pane, measure) {
  const layout = pane.layout();
  const figures = pane.figuresOf(layout);
  const range = rangeOf(layout.scores ?? [], [pane.rule.threshold ?? 0]);
  const heat = pane.heatOf(layout.reading, range);
  const cells = [];
  let x = MARGIN;
  let line = 0;
  layout.patches.forEach((patch, number) => {
    for (const glyph of glyphsOf(pane.page.bytes, patch.start, patch.stop, pane.page)) {
      const width = measure.measureText(glyph.text).width;
      if (x + width > WIDTH - MARGIN) [x, line] = [MARGIN, line + 1];
      const isKnown = heat && glyph.start < layout.reading.known;
      const height = isKnown ? Math.max(...heat.values.subarray(glyph.start, glyph.stop)) : 0;
      cells.push({ ...glyph, x, line, width, number, height: Math.min(Math.max(height, 0), 1) });
      x += width;
      if (pane.page.bytes[glyph.start] === 0x0a) [x, line] = [MARGIN, line + 1];
    }
    x += 2;
  });
  const settings = Object.entries(pane.rule).filter(([name, value]) => name !== "type" && value != null);
  const rule = [pane.rule.type, ...settings.map(([name, value]) => `${name.replace("_", " ")} ${value}`)].join(", ");
  const title = `${rule} · ${figures.patches} patches · mean ${figures.mean} · ${figures.flops} per byte`;
  const textTop = 34 + (layout.scores ? CURVE_HEIGHT : 0);
  return { ...layout, pane, title, range, cells, textTop, height: textTop + (line + 1) * LINE + MARGIN };
}

function drawPart(context, part, top, colours) {
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  context.fillStyle = colours.ink;
  context.font = "16px system-ui, sans-serif";
  context.fillText(part.title, MARGIN, top + 14, WIDTH - 2 * MARGIN);
  if (part.scores) {
    context.save();
    context.translate(MARGIN - 8, top + 28);
    const size = { width: WIDTH - 2 * MARGIN + 8, height: CURVE_HEIGHT };
    const { range, pane } = part;
    drawCurve(context, { ...part, ...size, length: Math.max(pane.page.bytes.length, 1), active: null, colours });
    const share = (pane.rule.threshold - range.low) / (range.high - range.low);
    const y = CURVE_HEIGHT - 14 - (CURVE_HEIGHT - 24) * share;
    context.fillStyle = colours.theta;
    for (let x = 40; x < size.width - 8; x += 9) context.fillRect(x, y, 5, 1.5);
    context.restore();
  }
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  context.font = FONT;
  for (const cell of part.cells) {
    const y = top + part.textTop + cell.line * LINE;
    context.fillStyle = cell.number % 2 ? colours.odd : colours.even;
    context.fillRect(cell.x, y + 20, cell.width, 26);
    context.globalAlpha = 0.3 + 0.7 * cell.height;
    context.fillStyle = colours.hot;
    context.fillRect(cell.x, y + 18 - 16 * cell.height, cell.width - 1, 16 * cell.height);
    context.globalAlpha = 1;
    context.fillStyle = cell.isSign ? colours.quiet : colours.ink;
    context.fillText(cell.text, cell.x, y + 39);
  }
}
