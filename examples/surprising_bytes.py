"""Find the bytes of a text that a model did not expect: `python examples/surprising_bytes.py --text "A red bsll."`.

A typing error costs more bits than the text around it; so do the first bytes of names and of new thoughts.
"""

import argparse

import blt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", help="model folder or name on the Hub; the bundled model if not given")
parser.add_argument("--text", default="Once upon a time, there was a little girl nxmed Lily.")
parser.add_argument("--top", type=int, default=5, help="how many bytes to show")
options = parser.parse_args()

data = options.text.encode()
score = blt.ByteLM.from_pretrained(options.model).score(data)
print(f"{score.bits_per_byte:.3f} bits per byte over {score.num_bytes} bytes")

bits = score.bits_by_byte[:-1]  # the last figure is the end of the document
for place in bits.argsort()[::-1][: options.top]:
    before, byte = data[max(0, place - 20) : place], data[place : place + 1]
    print(f"{bits[place]:6.2f} bits for {byte!r} after {before!r}")
