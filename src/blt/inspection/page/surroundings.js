/** The page around the text: its elements, messages, theme and downloads. */

/** Return the element of an id. */
export function element(id) {
  return document.getElementById(id);
}

/** Say something to who cannot see the page, and show it where it is an answer to a button. */
export function say(text, { isSeen = false } = {}) {
  element("status").textContent = text;
  if (isSeen) element("speed").textContent = text;
}

/** Show an error until the next success; null takes it away. */
export function showError(text) {
  element("error").hidden = text === null;
  element("error").textContent = text ?? "";
}

/** Let a file be saved. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Let the theme be chosen, and remember it where the browser lets pages do so. */
export function keepTheme(select, onChange) {
  const apply = () => {
    document.documentElement.dataset.theme = select.value;
    onChange();
  };
  try {
    select.value = localStorage.getItem("theme") ?? "";
  } catch {
    select.value = "";
  }
  apply();
  select.addEventListener("change", () => {
    apply();
    try {
      localStorage.setItem("theme", select.value);
    } catch {
      // a browser may forbid it; then the theme lasts as long as the page
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
}
