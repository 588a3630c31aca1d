"""Stage 3: where patches end.

In: byte ids `B T` and, for rules that need them, entropies `B T` in nats. Out: `Patches`. Next: `blt.model`.

A rule decides from the bytes read so far only; `patch` asks it about a whole batch, `OnlinePatcher` about one byte of
each row at a time, and both always agree. `calibrate` finds the threshold that gives a target mean patch length.
"""

from blt.patching.calibration import calibrate, count_text, count_text_by_row, mean_patch_bytes
from blt.patching.online import OnlinePatcher, PatcherState, read_byte
from blt.patching.patches import Patches
from blt.patching.rules import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    PatchRule,
    SpaceRule,
    StaticRule,
    patch,
)

__all__ = [
    "ByteRule",
    "EntropyAndRiseRule",
    "EntropyRiseRule",
    "EntropyRule",
    "OnlinePatcher",
    "PatchRule",
    "PatcherState",
    "Patches",
    "SpaceRule",
    "StaticRule",
    "calibrate",
    "count_text",
    "count_text_by_row",
    "mean_patch_bytes",
    "patch",
    "read_byte",
]
