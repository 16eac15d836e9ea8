"""Convert tokenizer.json, the format of Hugging Face's tokenizers, to the contents of encoder.json and vocab.bpe."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..system.files import parse_json

# the values that mean GPT-2's byte-level BPE; None also means that the key is absent
ALLOWED: dict[tuple[str, ...], tuple] = {
    ("model", "type"): ("BPE",),
    ("model", "dropout"): (None,),
    ("model", "unk_token"): (None, "<|endoftext|>"),  # byte-level BPE never uses it
    ("model", "continuing_subword_prefix"): (None, ""),
    ("model", "end_of_word_suffix"): (None, ""),
    ("model", "byte_fallback"): (None, False),
    ("model", "ignore_merges"): (None, False),
    ("normalizer",): (None,),
    ("pre_tokenizer", "type"): ("ByteLevel",),
    ("pre_tokenizer", "add_prefix_space"): (False,),
    ("pre_tokenizer", "use_regex"): (None, True),
    ("decoder", "type"): ("ByteLevel",),
    ("post_processor", "type"): (None, "ByteLevel", "TemplateProcessing"),
    ("post_processor", "special_tokens"): (None, {}),  # the template's: it adds none
}
ADVICE = "remove the file to use the weights without a tokenizer"


def convert(path: Path, text: bytes, eot: str) -> tuple[bytes, bytes]:
    """Return the contents of encoder.json and vocab.bpe; raise CheckpointError if the tokenizer isn't GPT-2's kind"""
    keys = parse_json(path, text)
    for names, allowed in ALLOWED.items():
        value = value_at(keys, names)
        if value not in allowed:
            raise CheckpointError(
                f"{path} has {'.'.join(names)} {value!r:.40}, and GPT-2's byte-level BPE has {allowed[0]!r}: {ADVICE}."
            )
    vocabulary = value_at(keys, ("model", "vocab"))
    if not isinstance(vocabulary, dict):
        raise CheckpointError(f"{path} has no object model.vocab: get the file again.")
    for token, i in added_tokens(path, keys):
        if token != eot:
            raise CheckpointError(f"{path} adds the token {token!r:.40}, and GPT-2 has only {eot}: {ADVICE}.")
        if vocabulary.setdefault(token, i) != i:
            raise CheckpointError(f"{path} gives {token} the ids {vocabulary[token]!r:.40} and {i!r:.40}: {ADVICE}.")
    lines = ["#version: 0.2", *merge_lines(path, keys)]
    return json.dumps(vocabulary).encode(), ("\n".join(lines) + "\n").encode(errors="surrogatepass")


def value_at(keys: Any, names: tuple[str, ...]) -> Any:
    """Return the value at a path of keys, or None if a key is absent"""
    for name in names:
        keys = keys.get(name) if isinstance(keys, dict) else None
    return keys


def added_tokens(path: Path, keys: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each added token and its id"""
    added = keys.get("added_tokens") or []
    for token in added if isinstance(added, list) else [added]:
        if not isinstance(value_at(token, ("content",)), str):
            raise CheckpointError(f"{path} has an added token without content, {token!r:.40}: get the file again.")
        yield token["content"], token.get("id")


def merge_lines(path: Path, keys: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of vocab.bpe; older files contain them, newer ones contain pairs of tokens"""
    merges = value_at(keys, ("model", "merges"))
    for pair in merges if isinstance(merges, list) else [merges]:
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise CheckpointError(f"{path} has {pair!r:.40} among its merges, not two tokens: get the file again.")
        yield " ".join(parts)
