"""Any language: bits per byte and compute per character by script, and how much of what is written is UTF-8.

Made from the tuned BLT and BPE of the fight on many languages, at the largest budget that both have finished.
"""

import codecs
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blt.api import ByteLM
from blt.codec import BOS_ID, EOS_ID
from blt.evaluation.bootstrap import ratio, share_interval
from blt.evaluation.scripts import script_of
from blt.model.cost import cost_of
from blt.patching import count_text

from .kept import blt_model, largest, plain_model
from .plan import Results
from .sides import PlainTransformer, Reading, plain_cost
from .texts import LANGUAGES, Corpus, HeldOut
from .tokens import BPE, byte_ids
from .training import Prepared

NEW_BYTES = 64
PROMPT_BYTES = 256
PROMPTS_OF_A_SCRIPT = 4


def any_language(results: Results, prepared: Prepared, work: Path) -> dict[str, Any] | None:
    """Return the figures by script; None while no budget has both models, or where they are not kept."""
    jobs = largest(LANGUAGES, ("blt", "bpe"), results, work)
    if jobs is None:
        return None
    blt, bpe = jobs["blt"], jobs["bpe"]
    lm = blt_model(blt, work)
    module, tokens = plain_model(bpe, prepared, work)
    assert tokens is not None
    test = prepared.corpus.test
    groups = groups_of(test)
    found = {}
    for script, numbers in groups.items():
        documents = [piece for piece, of in zip(test.pieces, test.document, strict=True) if of in numbers]
        found[script] = {
            "documents": len(numbers),
            "bytes": sum(map(len, documents)),
            "characters": sum(len(document.decode()) for document in documents),
            "blt": _bits(results[blt.name], numbers) | blt_compute(lm, documents),
            "bpe": _bits(results[bpe.name], numbers) | bpe_compute(module, tokens, documents),
        }
    return {
        "budget": blt.budget,
        "by_script": dict(sorted(found.items(), key=lambda each: -each[1]["bytes"])),
        "valid_utf8": valid_utf8(lm, module, tokens, prepared.corpus, groups),
    }


def groups_of(test: HeldOut) -> dict[str, set[int]]:
    """Divide held-out documents by script; languages that were never seen are a group of their own."""
    found: dict[str, set[int]] = {}
    for piece, number in zip(test.pieces, test.document, strict=True):
        name = "languages never seen" if test.names[number].startswith("unseen ") else script_of(piece)
        found.setdefault(name, set()).add(number)
    return found


def _bits(ran: Any, numbers: set[int]) -> dict[str, Any]:
    chosen = sorted(numbers)
    bits, num_bytes = np.array(ran["test_bits"])[chosen], np.array(ran["test_bytes"])[chosen]
    return {"bits_per_byte": ratio(bits, num_bytes, resamples=1000, seed=0).to_dict()}


def blt_compute(lm: ByteLM, documents: list[bytes]) -> dict[str, float]:
    """Return bytes per patch and forward FLOPs per character, the entropy model's included."""
    ids = [torch.from_numpy(byte_ids(document))[None] for document in documents]
    patches = [lm.patches(row) for row in ids]
    counted = [count_text(each, row) for each, row in zip(patches, ids, strict=True)]
    num_bytes, num_patches = (sum(each[part] for each in counted) for part in (0, 1))
    reading = Reading.of([row[0].numpy() for row in ids], num_bytes=num_bytes)
    per_patch = sum(row.shape[1] for row in ids) / sum(int(each.ends.sum()) for each in patches)
    cost = cost_of(
        lm.blt.config,
        mean_patch_bytes=per_patch,
        context_bytes=round(reading.context),
        entropy_model=None if lm.entropy_model is None else lm.entropy_model.config,
    )
    characters = sum(len(document.decode()) for document in documents)
    flops = cost.flops_with_entropy_model * reading.positions_per_byte * num_bytes
    return {"bytes_per_unit": num_bytes / num_patches, "flops_per_character": flops / characters}


def bpe_compute(module: PlainTransformer, tokens: BPE, documents: list[bytes]) -> dict[str, float]:
    """Return bytes per token and forward FLOPs per character."""
    ids, num_bytes = [tokens.encode(document) for document in documents], sum(map(len, documents))
    cost = plain_cost(module.shape, vocabulary=tokens.vocabulary, reading=Reading.of(ids, num_bytes=num_bytes))
    characters = sum(len(document.decode()) for document in documents)
    return {
        "bytes_per_unit": num_bytes / sum(len(each) - 2 for each in ids),
        "flops_per_character": cost.forward * num_bytes / characters,
    }


def valid_utf8(
    lm: ByteLM, module: PlainTransformer, tokens: BPE, corpus: Corpus, groups: dict[str, set[int]]
) -> dict[str, Any]:
    """Return the share of sampled continuations that are UTF-8, as whole texts, with nothing masked.

    Prompts are held-out beginnings, cut before a character; each is continued by 64 bytes at temperature 1. A last
    character that the limit cuts short is no fault.
    """
    first = dict[int, bytes]()
    for piece, number in zip(corpus.test.pieces, corpus.test.document, strict=True):
        first.setdefault(number, piece)
    by_kind: dict[str, dict[str, list[bool]]] = {side: {"Latin": [], "other scripts": []} for side in ("blt", "bpe")}
    for script, numbers in groups.items():
        for number in sorted(numbers)[: PROMPTS_OF_A_SCRIPT * (10 if script == "Latin" else 1)]:
            kind = "Latin" if script_of(first[number]) == "Latin" else "other scripts"  # unseen languages are of any
            prompt = codecs.getincrementaldecoder("utf-8")().decode(first[number][:PROMPT_BYTES]).encode()
            written = lm.generate(prompt, max_new_bytes=NEW_BYTES, temperature=1.0, valid_utf8=False, seed=number)
            by_kind["blt"][kind].append(is_utf8(written.new_bytes))
            by_kind["bpe"][kind].append(is_utf8(continue_by_tokens(module, tokens, prompt, seed=number)))
    return {side: {kind: _share(valid) for kind, valid in kinds.items() if valid} for side, kinds in by_kind.items()}


def _share(valid: list[bool]) -> dict[str, Any]:
    return {
        "continuations": len(valid),
        "valid": share_interval(np.array(valid, np.float64), resamples=1000, seed=0).to_dict(),
    }


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, but for a last character that is cut short."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


@torch.inference_mode()
def continue_by_tokens(module: PlainTransformer, tokens: BPE, prompt: bytes, *, seed: int) -> bytes:
    """Sample tokens at temperature 1 until there are 64 bytes or the document ends; what is over is cut off."""
    generator = torch.Generator().manual_seed(seed)
    ids: NDArray[np.int64] = tokens.encode(prompt)[:-1]
    start = len(ids)
    while len(tokens.decode(ids[start:].tolist())) < NEW_BYTES:
        logits = module(torch.from_numpy(ids)[None])[0, -1]
        logits[: BOS_ID + 1], logits[EOS_ID + 1] = -torch.inf, -torch.inf  # ids that no text has
        chosen = int(torch.multinomial(logits.softmax(0), 1, generator=generator))
        if chosen == EOS_ID:
            break
        ids = np.append(ids, chosen)
    return tokens.decode(ids[start:].tolist())[:NEW_BYTES]
