"""Show how a text falls into patches: `python examples/show_patches.py --text "Tom had a red ball."`.

A patch ends where the next byte is hard to predict, so that hard places get more of the model's thought.
"""

import argparse

import blt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", help="model folder or name on the Hub; the bundled model if not given")
parser.add_argument("--text", default="Once upon a time, there was a little girl named Lily.")
options = parser.parse_args()

lm = blt.ByteLM.from_pretrained(options.model)
patches = [patch for patch in lm.patch(options.text) if patch.data]  # the first one holds only the start of the text
print("|".join(patch.text for patch in patches))
for patch in patches:
    highest = max(patch.entropies, default=float("nan"))
    print(f"{patch.text!r:>24}  {len(patch.data)} bytes, entropy up to {highest:.2f} nats")
print(f"{len(options.text.encode()) / len(patches):.2f} bytes per patch")
