"""Byte-level BPE by the library `tokenizers`, with the special ids of `blt.codec`, so that batches are made alike."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID

NUM_SPECIAL = BYTE_OFFSET


def byte_ids(document: bytes) -> NDArray[np.int64]:
    """Return a document's bytes between BOS and EOS: what byte models read."""
    ids = np.frombuffer(document, np.uint8).astype(np.int64) + BYTE_OFFSET
    return np.concatenate([[BOS_ID], ids, [EOS_ID]])


class BPE:
    """Byte-level BPE; the id of token i is i + 4, after the four special ids that bytes have too."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def train(cls, documents: Iterable[bytes], *, vocabulary: int) -> "BPE":
        """Learn the merges of a text.

        Args:
            documents: UTF-8, the training text of all sides.
            vocabulary: ids in all, the 256 bytes and the special ids included.
        """
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary - NUM_SPECIAL, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
        )
        tokenizer.train_from_iterator((document.decode() for document in documents), trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> "BPE":
        """Read what `save` wrote."""
        return cls(Tokenizer.from_file(str(path)))

    def save(self, path: Path) -> None:
        """Write the library's JSON."""
        self.tokenizer.save(str(path))

    @property
    def vocabulary(self) -> int:
        """Ids in all."""
        return self.tokenizer.get_vocab_size() + NUM_SPECIAL

    def encode(self, document: bytes) -> NDArray[np.int64]:
        """Return a document's tokens between BOS and EOS."""
        tokens = np.array(self.tokenizer.encode(document.decode()).ids, np.int64)
        return np.concatenate([[BOS_ID], tokens + NUM_SPECIAL, [EOS_ID]]).astype(np.int64)

    @cached_property
    def bytes_of(self) -> list[bytes]:
        """The bytes of each id; those of special ids are none."""
        symbols = {symbol: byte for byte, symbol in _symbols().items()}
        names = {number: name for name, number in self.tokenizer.get_vocab().items()}
        found = [bytes(symbols[symbol] for symbol in names[number]) for number in range(len(names))]
        return [b""] * NUM_SPECIAL + found

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of tokens, valid UTF-8 or not."""
        return b"".join(self.bytes_of[number] for number in ids)


def _symbols() -> dict[int, str]:
    """Return the printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(rest)}
