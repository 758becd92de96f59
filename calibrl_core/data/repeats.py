"""Rows whose prompt an earlier row, or another source, has already.

Near duplicates are found by MinHash over word 5-grams with locality-sensitive hashing (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from hashlib import blake2b
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import Example
from calibrl_core.verifiers.quantities import canonical_answer

Repeat = Literal["duplicates", "contradictions", "near_duplicates"]
Overlap = Literal["overlap_prompts", "overlap_near", "overlap_images"]
NEAR = 0.8  # estimated Jaccard similarity of the 5-grams from which texts are near duplicates
COMPARED_ROWS = 100_000  # rows whose texts are compared for near duplicates; each needs about 1 kB of memory
SHORTEST = 12  # words of a text that is compared: a few words differ too easily by chance
_WORDS = 5  # of a gram
_BANDS, _PER_BAND = 8, 4  # 0.8 alike: candidates with a probability of 98.5 %; 0.5: 40 %, refused by the estimate
_LONGEST = 4_000  # first characters of a text that are compared
LONGEST_NORMALISED = 100_000  # characters; the words of a longer text need too much memory
_PRIME = 2**31 - 1
_WORD = re.compile(r"\w+")
_random = np.random.default_rng(5)
_FACTORS = _random.integers(1, _PRIME, (_BANDS * _PER_BAND, 1), dtype=np.uint64)
_PLACES = _random.integers(1, _PRIME, _WORDS, dtype=np.uint64)  # factor of each word of a gram
_OFFSETS = _random.integers(0, _PRIME, (_BANDS * _PER_BAND, 1), dtype=np.uint64)


def normalised(text: str) -> str:
    """Return a text as duplicates share it: without differences of case, of spaces, and of forms of characters. A text
    of more than LONGEST_NORMALISED characters is returned unchanged.
    """
    if len(text) > LONGEST_NORMALISED:
        return text
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_key(example: Example, images: list[bytes]) -> bytes:
    """Return a digest of the texts and images of a prompt. `images`: their keys."""
    return _digest(*(normalised(turn.text) for turn in example.earlier), normalised(example.question), images=images)


class Repeats:
    """Prompts that were seen, as digests."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[bytes, bytes]] = {}  # digests of the first row's answer and expert, by prompt
        self._signatures: list[NDArray[np.uint32]] = []
        self._buckets: defaultdict[bytes, list[int]] = defaultdict(list)  # places of signatures

    @property
    def prompts(self) -> frozenset[bytes]:
        """Return the digests of all prompts."""
        return frozenset(self._seen)

    def has(self, key: bytes) -> bool:
        """Return if a prompt was seen."""
        return key in self._seen

    def kind(self, example: Example, images: list[bytes], key: bytes) -> Repeat | None:
        """Return how a row repeats an earlier one, or None; remember it. `images` and `key`: of its prompt."""
        answer, expert = _digest(str(canonical_answer(example.answer))), _digest(example.expert or "")
        if found := self._seen.get(key):
            if found[0] != answer:
                return "contradictions"
            return "duplicates" if found[1] == expert else "near_duplicates"
        self._seen[key] = (answer, expert)
        if len(self._signatures) >= COMPARED_ROWS or (text := _Text.of(example, images)) is None:
            return None
        if self._has_near(text):
            return "near_duplicates"
        for band in text.bands:
            self._buckets[band].append(len(self._signatures))
        self._signatures.append(text.signature)
        return None

    def is_near(self, example: Example, images: list[bytes]) -> bool:
        """Return if a remembered text with the same images is nearly equal."""
        text = _Text.of(example, images)
        return text is not None and self._has_near(text)

    def _has_near(self, text: _Text) -> bool:
        candidates = {place for band in text.bands for place in self._buckets.get(band, ())}
        return any(np.mean(self._signatures[place] == text.signature) >= NEAR for place in candidates)


class HeldOut:
    """Prompts and images of validation data, as digests."""

    def __init__(self) -> None:
        self._prompts, self._images = Repeats(), set[bytes]()

    def add(self, example: Example, images: list[bytes], key: bytes) -> None:
        """Remember a row. `images` and `key`: of its prompt."""
        self._prompts.kind(example, images, key)
        self._images.update(images)

    def overlap(self, example: Example, images: list[bytes], key: bytes) -> Overlap | None:
        """Return what a row has in common with the validation data, or None."""
        if self._prompts.has(key):
            return "overlap_prompts"
        if self._prompts.is_near(example, images):
            return "overlap_near"
        return None if self._images.isdisjoint(images) else "overlap_images"


class _Text(NamedTuple):
    """A text that is compared with others: its signature, and the digests of the bands of this one."""

    signature: NDArray[np.uint32]
    bands: list[bytes]

    @classmethod
    def of(cls, example: Example, images: list[bytes]) -> _Text | None:
        """Return the question of an example with its images, or None if it is too short."""
        words = _WORD.findall(normalised(example.question)[:_LONGEST])
        if len(words) < SHORTEST:
            return None
        signature = _signature(words)
        bands = [
            _digest(str(band), signature[band * _PER_BAND : (band + 1) * _PER_BAND].tobytes().hex(), images=images)
            for band in range(_BANDS)
        ]
        return cls(signature, bands)


def _signature(words: list[str]) -> NDArray[np.uint32]:
    """Return the MinHash signature [_BANDS * _PER_BAND] of a text's 5-grams."""
    hashed = np.fromiter((crc32(word.encode()) % _PRIME for word in words), np.uint64, len(words))
    grams = np.zeros(len(words) - _WORDS + 1, np.uint64)
    for place, factor in enumerate(_PLACES):
        grams += hashed[place : place + len(grams)] * factor % _PRIME
    grams %= _PRIME
    found: NDArray[np.uint32] = ((_FACTORS * grams + _OFFSETS) % _PRIME).min(axis=1).astype(np.uint32)
    return found


def _digest(*texts: str, images: list[bytes] | None = None) -> bytes:
    digest = blake2b(digest_size=12)
    for text in texts:
        digest.update(f"{len(text)}:".encode() + text.encode(errors="surrogatepass"))
    for image in images or ():
        digest.update(image)
    return digest.digest()
