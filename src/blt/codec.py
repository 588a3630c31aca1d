"""Stage 1: text and bytes ⇄ ids.

In: `str` or `bytes`, anything at all. Out: byte ids `T`. Next: `blt.entropy`, `blt.patching`.

Vocabulary of 260 ids (the one of the published weights): four special ids, then byte b as b + 4.
"""

import codecs

import numpy as np
import torch

from blt.errors import DataError
from blt.shapes import Int, Tensor

BOE_ID = 0
"""Beginning of example; fills n-grams that reach before the start of a document."""
BOS_ID = 1
"""Beginning of a document."""
EOS_ID = 2
"""End of a document."""
BPE_ID = 3
"""Delimiter that the published vocabulary reserves; never produced here."""
BYTE_OFFSET = 4
"""Id of byte 0."""
VOCABULARY_SIZE = 260
"""Four special ids and 256 bytes."""


def to_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a text, whatever it holds.

    Lone surrogates, which UTF-8 has no bytes for, become the raw byte that they stand for (the way Python passes
    undecodable command-line arguments) or, failing that, the three bytes that they would have.
    """
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    if not isinstance(text, str):
        raise DataError(f"expected a text or bytes, got {text!r}")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def encode(text: str | bytes, *, bos: bool = False, eos: bool = False) -> Int[Tensor, " T"]:
    """Turn text or bytes into ids, int64.

    Args:
        text: any text, or any bytes, valid UTF-8 or not.
        bos: put `BOS_ID` in front.
        eos: put `EOS_ID` at the end.
    """
    ids = np.frombuffer(to_bytes(text), dtype=np.uint8).astype(np.int64) + BYTE_OFFSET
    front, back = [BOS_ID] * bos, [EOS_ID] * eos
    return torch.from_numpy(np.concatenate([np.array(front, np.int64), ids, np.array(back, np.int64)]))


def decode_bytes(byte_ids: Int[Tensor, " T"]) -> bytes:
    """Turn ids back into bytes; special ids vanish."""
    ids = byte_ids.detach().cpu().numpy()
    return (ids[ids >= BYTE_OFFSET] - BYTE_OFFSET).astype(np.uint8).tobytes()


class Utf8Stream:
    """Turns bytes into text as they come, never showing half a character.

    Bytes that can still become a character are held back; bytes that cannot are shown as U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def num_held(self) -> int:
        """How many bytes are held back."""
        return len(self._decoder.getstate()[0])

    def feed(self, data: bytes) -> str:
        """Return the text that is complete once `data` is read (often the empty string)."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Return what was held back: the empty string, or U+FFFD for a character cut short."""
        return self._decoder.decode(b"", final=True)
