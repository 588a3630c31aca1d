/**
 * Where patches end: the rules of `blt.patching`, computed from entropies, so that a threshold can be dragged.
 *
 * Entropies and thresholds are compared in float32, as there. Index i is the text's i-th byte; BOS, which stands before
 * it and is a patch of its own, has the entropy `start`.
 */

/** Rules by name: what each is called, and the settings that it has. */
export const RULES = {
  entropy: { label: "entropy H > θ", settings: ["threshold"], needsEntropies: true },
  "entropy-rise": { label: "entropy rises by more than θ", settings: ["threshold"], needsEntropies: true },
  "entropy-and-rise": {
    label: "entropy H > θ, and it has risen",
    settings: ["threshold", "rise_threshold"],
    needsEntropies: true,
  },
  space: { label: "space", settings: [], needsEntropies: false },
  static: { label: "static: every so many bytes", settings: ["length"], needsEntropies: false },
  byte: { label: "byte: after each", settings: [], needsEntropies: false },
};

/**
 * Return what a rule compares with θ after each byte; −∞ where it ends no patch at any threshold. Null for rules
 * without a threshold, and without entropies.
 */
export function scoresOf(rule, { start, entropies }) {
  if (!RULES[rule.type].settings.includes("threshold") || !entropies) return null;
  if (rule.type === "entropy") return entropies;
  const least = Math.fround(rule.rise_threshold ?? 0);
  return Float32Array.from(entropies, (entropy, index) => {
    const rise = Math.fround(entropy - Math.fround(index ? entropies[index - 1] : start));
    if (rule.type === "entropy-rise") return rise;
    return rise > least ? entropy : -Infinity;
  });
}

/**
 * Return for each byte 1 where a patch is complete once it has been read, else 0.
 *
 * @param rule as `config.json` holds it: `{type, threshold, …, max_length}`
 * @param bytes the text
 * @param figures `{start, entropies}`: the entropy after BOS, and a Float32Array with that after each byte
 */
export function endsOf(rule, bytes, figures) {
  const ends = new Uint8Array(bytes.length);
  const scores = scoresOf(rule, figures);
  const threshold = Math.fround(rule.threshold ?? 0);
  let wasSpace = true; // BOS is space-like
  let open = 0; // bytes since the rule itself last ended a patch
  for (let index = 0; index < bytes.length; index += 1) {
    const isSpace = isSpaceLike(bytes[index]);
    open += 1;
    let isEnd = rule.type === "byte";
    if (scores) isEnd = scores[index] > threshold;
    else if (rule.type === "space") isEnd = isSpace && !wasSpace;
    else if (rule.type === "static") isEnd = (index + 1) % rule.length === 0;
    wasSpace = isSpace;
    ends[index] = isEnd || (rule.max_length != null && open % rule.max_length === 0);
    if (isEnd) open = 0;
  }
  return ends;
}

function isSpaceLike(byte) {
  const isLetter = (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a);
  const isDigit = byte >= 0x30 && byte <= 0x39;
  return !isLetter && !isDigit && !(byte >= 0x80 && byte <= 0xbf);
}

/** Return patches `{start, stop, isComplete}` of ends; what follows the last end is an open patch. */
export function patchesOf(ends, length) {
  const patches = [];
  let start = 0;
  for (let index = 0; index < ends.length; index += 1) {
    if (ends[index]) {
      patches.push({ start, stop: index + 1, isComplete: true });
      start = index + 1;
    }
  }
  if (start < length) patches.push({ start, stop: length, isComplete: false });
  return patches;
}

/** Return the threshold at which scores exceed it `count` times, or as near to that as they can. */
export function thresholdFor(scores, count) {
  const sorted = Array.from(scores).filter(Number.isFinite).sort((a, b) => b - a);
  if (!sorted.length) return 0;
  const at = Math.min(Math.max(count, 0), sorted.length);
  const above = at ? sorted[at - 1] : sorted[0] + 0.1;
  const below = at < sorted.length ? sorted[at] : sorted[at - 1] - 0.1;
  return Math.round(((above + below) / 2) * 1e4) / 1e4;
}

/** Return forward FLOPs per byte at a mean patch length; see `blt.inspection.flops_by_patch`. */
export function flopsPerByte(flops, meanPatchBytes) {
  return flops.constant + flops.per_patch / meanPatchBytes + flops.per_patch_squared / meanPatchBytes ** 2;
}
