"""The letters of a shape, and the types that carry them.

| letter | meaning |
|---|---|
| B | rows of a batch |
| T | bytes of a row (ids, to be exact: BOS and EOS count) |
| P | patches of a row: slots, the same number for every row |
| D | width of a byte state (local encoder and decoder) |
| G | width of a patch state (global transformer) |
| H | attention heads |
| V | vocabulary: 256 bytes and 4 special ids |
"""

from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Float32", "Int", "Tensor"]
