"""Which split a document goes to."""

import hashlib


def is_for_validation(document: bytes, *, fraction: float, seed: int) -> bool:
    """Choose a document's split by a hash of its bytes, so that duplicates stay together.

    Args:
        document: its bytes.
        fraction: share of documents that go to validation.
        seed: another one makes another choice.
    """
    digest = hashlib.blake2b(document, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") < int(fraction * (1 << 64))
