"""Lossless compression by a model's own predictions: the size of the file is its bits per byte, and decoding proves it.

In: a `LanguageModel` and bytes. Out: a compressed file, and the same bytes again. Next: `blt compress`, `blt
decompress`.
"""

from blt.compression.archive import Archive
from blt.compression.lossless import DEFAULT_LEVEL, LEVELS, Level, compress, decompress

__all__ = ["DEFAULT_LEVEL", "LEVELS", "Archive", "Level", "compress", "decompress"]
