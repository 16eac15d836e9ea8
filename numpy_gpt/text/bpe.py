"""Train byte-level BPE, and write the two files that tokenizer.py reads.

GPT-2's pattern splits text into words, which start as sequences of bytes. Each step merges the most frequent pair of
neighbouring tokens into a new token. This changes only the words with that pair. So only the counts of their pairs are
updated. A heap returns the most frequent pair.
"""

import heapq
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import regex

from ..errors import GPTError
from ..number import is_index
from ..system.atomic import make_directory, replacing
from .tokenizer import BYTES, EOT, OPENAI, PATTERN, SIGNS, Tokenizer

Pair = tuple[int, int]
FIRST = len(BYTES)  # the id of the first merge


class TooFewPairs(GPTError):
    """Report a text that has too few different pairs of tokens for a vocabulary of the wanted size"""

    def __init__(self, n_vocab: int, largest: int):
        super().__init__(
            f"n_vocab is {n_vocab}, and this text has pairs for only {largest} tokens: choose at most {largest}, or "
            "give more text."
        )
        self.largest = largest


def train(texts: Iterable[str], n_vocab: int) -> list[Pair]:
    """Return the merges of a vocabulary of n_vocab tokens, which includes <|endoftext|>

    Of equally frequent pairs the one with the lower ids is merged first.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise GPTError(f"texts is {texts!r:.40}: give a list of texts, or an iterator that yields them.")
    if not is_index(n_vocab) or n_vocab <= FIRST:
        raise GPTError(f"n_vocab is {n_vocab!r}: it must be at least {FIRST + 1}, for the bytes and {EOT}.")
    words, counts = spell(count_words(texts))
    pairs, places = count_pairs(words, counts)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while len(merges) < n_vocab - FIRST - 1:
        pair = most_frequent(heap, pairs)
        if pair is None:
            raise TooFewPairs(n_vocab, FIRST + 1 + len(merges))
        changed: Counter[Pair] = Counter()
        for i in places.pop(pair):
            old = words[i]
            words[i] = new = merge(old, pair, FIRST + len(merges))
            for neighbours in pairwise(old):
                changed[neighbours] -= counts[i]
            for neighbours in pairwise(new):
                changed[neighbours] += counts[i]
                places[neighbours].add(i)
        for neighbours, change in changed.items():
            if change:
                pairs[neighbours] += change
                heapq.heappush(heap, (-pairs[neighbours], neighbours))
        merges.append(pair)
    return merges


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Return the count of every word by GPT-2's pattern; <|endoftext|> separates documents"""
    word = regex.compile(PATTERN)
    words: Counter[str] = Counter()
    for text in texts:
        if not isinstance(text, str):
            raise GPTError(f"a text is {text!r:.40}: it must be a str.")
        for document in text.split(EOT):
            words.update(word.findall(document))
    return words


def spell(found: Counter[str]) -> tuple[list[list[int]], list[int]]:
    """Return the words as lists of ids, and the count of each; half a surrogate pair, which UTF-8 lacks, becomes ?"""
    ids = {byte: i for i, byte in enumerate(BYTES)}
    return [[ids[byte] for byte in word.encode(errors="replace")] for word in found], list(found.values())


def count_pairs(words: list[list[int]], counts: list[int]) -> tuple[Counter[Pair], defaultdict[Pair, set[int]]]:
    """Return the count of every pair, and the words that contain it"""
    pairs: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += counts[i]
            places[pair].add(i)
    return pairs, places


def most_frequent(heap: list[tuple[int, Pair]], pairs: Counter[Pair]) -> Pair | None:
    """Pop the most frequent pair from the heap, or None; skip outdated counts, which stay in the heap"""
    while heap:
        n, pair = heapq.heappop(heap)
        if n and -n == pairs[pair]:
            return pair
    return None


def merge(word: list[int], pair: Pair, token: int) -> list[int]:
    """Return the word with every such pair, from the left, replaced by the token"""
    merged: list[int] = []
    i = 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            merged.append(token)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def write(directory: str | Path, merges: list[Pair]) -> None:
    """Write encoder.json and vocab.bpe, with ids in OpenAI's order: bytes, merges, <|endoftext|>"""
    tokens = [SIGNS[byte] for byte in BYTES]
    lines = ["#version: 0.2"]
    for a, b in merges:
        lines.append(f"{tokens[a]} {tokens[b]}")
        tokens.append(tokens[a] + tokens[b])
    ids = {token: i for i, token in enumerate([*tokens, EOT])}
    make_directory(Path(directory))
    for name, text in zip(OPENAI, (json.dumps(ids), "\n".join(lines) + "\n"), strict=True):
        with replacing(Path(directory, name)) as f:
            f.write(text.encode())


def tokenizer(merges: list[Pair]) -> Tokenizer:
    """Return the tokenizer of these merges; without merges every byte is a token"""
    with tempfile.TemporaryDirectory() as directory:
        write(directory, merges)
        return Tokenizer(*(Path(directory, name) for name in OPENAI))
