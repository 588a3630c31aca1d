"""The codec as a `tokenizer.json`, so that `AutoTokenizer` and pipelines of transformers read and write the same ids.

transformers has no tokenizer of its own for BLT. The form is that of the package `tokenizers`: a byte-level BPE without
merges. It shows each byte as one printable character, by GPT-2's table, and so can any byte be in its vocabulary.
"""

from typing import Any

from blt.codec import BOE_ID, BOS_ID, BPE_ID, BYTE_OFFSET, EOS_ID

SPECIAL = {BOE_ID: "<|boe|>", BOS_ID: "<|bos|>", EOS_ID: "<|eos|>", BPE_ID: "<|bpe|>"}


def tokenizer_files() -> dict[str, dict[str, Any]]:
    """Return the content of `tokenizer.json` and `tokenizer_config.json`."""
    bos, eos = SPECIAL[BOS_ID], SPECIAL[EOS_ID]
    added = [
        {"id": number, "content": text, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, text in SPECIAL.items()
    ]
    vocabulary = {text: number for number, text in SPECIAL.items()}
    vocabulary |= {character: byte + BYTE_OFFSET for byte, character in enumerate(byte_characters())}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, second],
        "special_tokens": {bos: {"id": bos, "ids": [BOS_ID], "tokens": [bos]}},
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": template,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": SPECIAL[BOE_ID],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def byte_characters() -> list[str]:
    """Return the printable character that stands for each byte: itself where it is one, else one from 256 on."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    rest = iter(range(256, 512))
    return [chr(byte if byte in shown else next(rest)) for byte in range(256)]
