"""What the laws are tried on: text, random bytes, several documents, lengths past every window."""

from dataclasses import dataclass

import torch

from blt.codec import BYTE_OFFSET, EOS_ID, encode
from blt.errors import DataError
from blt.lm import LanguageModel
from blt.lm.finite import PARAGRAPH
from blt.shapes import Bool, Int, Tensor

MAX_TEXT = 2048
"""Bytes of a given text that are used."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows on which laws are tried."""

    row: Int[Tensor, "1 T"]
    """One long document: BOS, text, random bytes; no EOS."""
    random_ends: Bool[Tensor, "1 T"]
    """Boundaries for the row that no rule chose."""
    documents: tuple[Int[Tensor, " _"], ...]
    """Whole documents of unequal lengths, an empty one among them."""
    generator: torch.Generator
    """Chooses positions."""

    @classmethod
    def draw(cls, lm: LanguageModel, *, text: bytes | None, seed: int) -> "Sample":
        """Choose rows for a model.

        Args:
            lm: the model; rows are half as long again as its widest window, or more.
            text: what the row starts with, up to `MAX_TEXT` bytes; by default a paragraph.
            seed: of the random bytes, boundaries and positions.

        Raises:
            DataError: the text is empty.
        """
        if text == b"":
            raise DataError("the text is empty; give at least one byte, or leave it out")
        text = (PARAGRAPH.encode() if text is None else text)[:MAX_TEXT]
        generator = torch.Generator().manual_seed(seed)
        length = max(_widest_window(lm) * 3 // 2 + 32, len(text) + 33)
        noise = bytes(torch.randint(0, 256, (length,), generator=generator).tolist())
        row = encode((text + noise)[: length - 1], bos=True)
        documents = (text[-97:], b"", noise[:61], text[:150], noise[61:62])
        return cls(
            row=row[None].to(lm.device),
            random_ends=(torch.rand(1, length, generator=generator) < 0.2).to(lm.device),
            documents=tuple(encode(document, bos=True, eos=True).to(lm.device) for document in documents),
            generator=generator,
        )

    @property
    def length(self) -> int:
        """Ids of the row."""
        return self.row.shape[1]

    def positions(self, count: int, *, ends: Bool[Tensor, "1 T"]) -> list[int]:
        """Choose positions in the row, past its first: the last, some in the midst of patches, some right behind them.

        Inside a patch a byte that reads its own patch gives itself away; behind one, a patch that reads on.
        """
        behind = torch.nn.functional.pad(ends, (1, 0))[0, : self.length].nonzero()[:, 0]
        closing = ends[0].nonzero()[:, 0]
        chosen = {self.length - 1}
        for group in (behind, closing, torch.arange(self.length)):
            group = group[group > 0]
            order = torch.randperm(len(group), generator=self.generator)[: count // 3 or 1]
            chosen |= set(group.cpu()[order].tolist())
        return sorted(chosen)

    def other_id(self, byte_id: int) -> int:
        """Choose another byte."""
        offset = int(torch.randint(1, 256, (), generator=self.generator))
        return (max(byte_id, BYTE_OFFSET) - BYTE_OFFSET + offset) % 256 + BYTE_OFFSET

    def batch(self) -> tuple[Int[Tensor, "B T"], list[int]]:
        """Return the row's start and the documents as a batch filled up with EOS, and the length of each row."""
        rows = [self.row[0, :200], *self.documents]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=EOS_ID)
        return padded, [len(row) for row in rows]


def _widest_window(lm: LanguageModel) -> int:
    windows = [lm.blt.config.local_encoder.window, lm.blt.config.local_decoder.window]
    if lm.entropy_model is not None:
        windows.append(lm.entropy_model.config.window)
    return max(windows)
