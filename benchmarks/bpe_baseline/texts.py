"""Which bytes are trained on, tuned on and reported, the same for every side.

A document longer than `MAX_BYTES` is cut at a line into pieces, and each piece is a document of its own, for all sides:
so all of them have read the same bytes before they predict one. Intervals are over the documents before the cut.
"""

import hashlib
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

from blt.data import read_documents

MAX_BYTES = 2048
"""Longest piece of a document, and the bytes of one training window."""
STORIES, PYTHON, LANGUAGES = "stories", "python", "languages"
CORPORA = (STORIES, PYTHON, LANGUAGES)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Pieces of held-out documents."""

    pieces: list[bytes]
    document: list[int]
    """Which document each piece is of."""
    names: list[str]
    """Of the documents."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One text, divided."""

    train: list[bytes]
    """Pieces."""
    dev: HeldOut
    """Every choice is made on these."""
    test: HeldOut
    """Reported, and looked at for nothing else."""

    def checksum(self) -> str:
        """Return the sha256 of all pieces in their order."""
        digest = hashlib.sha256()
        for part in (self.train, self.dev.pieces, self.test.pieces):
            for piece in part:
                digest.update(len(piece).to_bytes(8, "little") + piece)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where the texts are."""

    stories_train: str
    stories_dev: str
    stories_test: str
    python_train: str
    python_test: str
    languages: str

    def corpus(self, name: str) -> Corpus:
        """Read one corpus and divide it."""
        if name == STORIES:
            return stories(self.stories_train, dev=self.stories_dev, test=self.stories_test)
        return python(self.python_train, test=self.python_test) if name == PYTHON else languages(self.languages)


def pieces_of(document: bytes, *, limit: int = MAX_BYTES) -> list[bytes]:
    """Cut a document into pieces of at most `limit` bytes, behind a line end, else before a character."""
    found = []
    while len(document) > limit:
        cut = document.rfind(b"\n", limit // 2, limit) + 1
        if not cut:
            cut = limit
            while document[cut] & 0xC0 == 0x80:  # a UTF-8 continuation byte
                cut -= 1
        found.append(document[:cut])
        document = document[cut:]
    return [*found, document] if document else found


def held_out(documents: list[tuple[str, bytes]], *, max_pieces: int | None = None) -> HeldOut:
    """Cut held-out documents; of each, the first pieces count."""
    pieces, number_of, names = [], [], []
    for number, (name, document) in enumerate(documents):
        some = pieces_of(document)[:max_pieces]
        pieces += some
        number_of += [number] * len(some)
        names.append(name)
    return HeldOut(pieces=pieces, document=number_of, names=names)


def stories(train: str, *, dev: str, test: str, num_dev: int = 100, num_test: int = 250) -> Corpus:
    """Return TinyStories: whole stories, of the held-out files the first ones."""
    unnamed = [[("", document) for document in read_documents(path)] for path in (dev, test)]
    return Corpus(
        train=[piece for document in read_documents(train) for piece in pieces_of(document)],
        dev=held_out(unnamed[0][:num_dev]),
        test=held_out(unnamed[1][:num_test]),
    )


def python(train: str, *, test: str) -> Corpus:
    """Return Python source: dev is every 16th training file, of which and of the test files the first pieces count."""
    files = _rows(train)
    kept = [source for number, (_, source) in enumerate(files) if number % 16]
    return Corpus(
        train=[piece for source in kept for piece in pieces_of(source)],
        dev=held_out(files[::16], max_pieces=2),
        test=held_out(_rows(test), max_pieces=4),
    )


def languages(path: str) -> Corpus:
    """Return a text in many languages: of each, the first 80% is trained on, and held-out text is from the end.

    The same place of every translation is held out, with a gap before, so that no held-out sentence is trained on in
    another language; every 32nd translation is held out wholly, and only its end is reported: a language never seen
    (its name begins with `unseen`).
    """
    train, dev, test = [], [], []
    for number, (name, text) in enumerate(_rows(path)):
        is_seen = number % 32 != 31
        lines = text.splitlines(keepends=True)
        first, then, last = (_between(lines, *shares) for shares in ((0.0, 0.8), (0.8, 0.88), (0.9, 1.0)))
        if not (first and then and last):  # too few lines to hold any out
            continue
        if is_seen:
            train += pieces_of(first)
            if number % 3 == 0:
                dev.append((name, pieces_of(then, limit=1024)[0]))
        test.append((name if is_seen else f"unseen {name}", pieces_of(last, limit=1024)[0]))
    return Corpus(train=train, dev=held_out(dev), test=held_out(test))


def _between(lines: list[bytes], start: float, stop: float) -> bytes:
    """Return the lines that begin between two shares of the text."""
    total, place, found = sum(map(len, lines)), 0, []
    for line in lines:
        if start * total <= place < stop * total:
            found.append(line)
        place += len(line)
    return b"".join(found)


def _rows(path: str) -> list[tuple[str, bytes]]:
    """Read JSON lines with a text and a name."""
    data = Path(path).read_bytes()
    data = lzma.decompress(data) if path.endswith(".xz") else data
    rows = [json.loads(line) for line in data.split(b"\n") if line.strip()]
    return [(row.get("path") or row.get("code") or "", row["text"].encode()) for row in rows]
