r"""Bytes as OpenAI's API names tokens: a character of one byte by itself, any other byte as `bytes:\xe6`.

No two names are equal: a character has one letter, and `bytes:\xe6` more.
"""

import codecs

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID

BOS_NAME = "<|beginoftext|>"
EOS_NAME = "<|endoftext|>"
"""The end of a text, as OpenAI calls it; also what divides documents in a file of text."""

SPECIAL_IDS = {BOS_NAME: BOS_ID, EOS_NAME: EOS_ID}


def token_name(byte: int | None) -> str:
    """Return the name of a byte; None is the end of the text."""
    if byte is None:
        return EOS_NAME
    return chr(byte) if byte < 0x80 else f"bytes:\\x{byte:02x}"


def name_of_id(index: int) -> str:
    """Return the name of an id of the vocabulary."""
    if index >= BYTE_OFFSET:
        return token_name(index - BYTE_OFFSET)
    return {BOS_ID: BOS_NAME, EOS_ID: EOS_NAME}.get(index, f"<|special{index}|>")


class TextOffsets:
    """Computes for each byte where its character begins in the text that is shown, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._num_shown = 0

    @property
    def end(self) -> int:
        """How many characters are shown once all bytes are, an unfinished one as one."""
        return self._num_shown + bool(self._decoder.getstate()[0])

    def feed(self, byte: int) -> int:
        """Return the offset of the character that a byte is a part of."""
        self._num_shown += len(self._decoder.decode(bytes([byte])))
        # Either the byte has begun a character that is not finished, or it is a part of the one that was shown last.
        is_open = bool(self._decoder.getstate()[0])
        return self._num_shown if is_open else self._num_shown - 1
