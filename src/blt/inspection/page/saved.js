/** A page that holds its readings, so that it opens without a server. */

import { Reading } from "./reading.js";

const EMPTY = '<script type="application/json" id="saved"></script>';

/** Return the state that this page holds, or null where a server stands behind it. */
export function savedState() {
  const text = document.getElementById("saved").textContent;
  if (!text.trim()) return null;
  const { readings, ...state } = JSON.parse(text);
  document.documentElement.dataset.saved = "";
  const read = readings.map(Reading.from);
  return { ...state, readings: read, bytes: read[0].bytes };
}

/** Return a page that holds a state. No text can end the element that it lies in. */
export function pageWith(page, state) {
  const json = JSON.stringify(state).replaceAll("<", "\\u003c");
  return page.replace(EMPTY, () => EMPTY.replace("></", () => `>${json}</`));
}
