"""Tell a story, shown as it is written: `python examples/tell_a_story.py --prompt "Tom had a red ball."`."""

import argparse

import blt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", help="model folder or name on the Hub; the bundled model if not given")
parser.add_argument("--prompt", default="Once upon a time")
parser.add_argument("--bytes", type=int, default=300, help="how long the story may become")
options = parser.parse_args()

lm = blt.ByteLM.from_pretrained(options.model)
print(options.prompt, end="")
for piece in lm.stream(options.prompt, max_new_bytes=options.bytes, temperature=0.7, seed=0):
    print(piece, end="", flush=True)  # a piece never splits a character
print()
