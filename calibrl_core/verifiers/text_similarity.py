"""Reward for similar text, between two templates: OpenAI's grader of this name."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from calibrl_core.verifiers.base import Deferred, Verifier
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.string_check import Template
from calibrl_core.verifiers.templates import fill, names_truth

LONGEST = 20_000  # characters of each text; METEOR and the longest common part take time quadratic in the words
_WORD = re.compile(r"\w+")
Measure = Literal[
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]


class TextSimilarityReward(Verifier):
    """Similarity of two texts, 0.0 to 1.0. `fuzzy_match` compares characters as they are, without white space around
    the texts (rapidfuzz, `fuzz.ratio`). The others compare words: letters, digits and `_`, in lower case, without
    punctuation. An empty text is similar to nothing.
    """

    type: Literal["text_similarity"] = "text_similarity"
    name: str = Field(
        "text_similarity", pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name in metrics."
    )
    input: Template = Field("{{ sample.output_text }}", description="Text to check, with placeholders.")
    reference: Template = Field("{{ truth }}", description="Text to compare with, with placeholders.")
    evaluation_metric: Measure = Field(
        "fuzzy_match",
        description="fuzzy_match: 1 minus the share of characters to insert or delete. bleu: of up to four words, with "
        "smoothing. gleu: Google's, of one to four words. meteor: with equal stems, without synonyms. rouge_1 to "
        "rouge_5: F1 of runs of as many words. rouge_l: F1 of the longest common subsequence.",
    )

    @property
    def label(self) -> str:
        return self.name

    @property
    def reads_truth(self) -> bool:
        return names_truth(self.input, self.reference)

    def settle(self, seen: RewardInput) -> float | Deferred:
        text, reference = fill(self.input, seen).strip(), fill(self.reference, seen).strip()
        if not text or not reference:
            return 0.0
        if text == reference:
            return 1.0
        if max(len(text), len(reference)) > LONGEST:
            raise ValueError(f"a text has more than {LONGEST} characters")
        return Deferred(text, reference)

    def judge(self, text: str, truth: str) -> float:
        return similarity(self.evaluation_metric, text, truth)

    def prepare(self) -> None:
        similarity(self.evaluation_metric, "a", "b")


def similarity(measure: Measure, text: str, reference: str) -> float:
    """Return the similarity of two texts."""
    if measure == "fuzzy_match":
        from rapidfuzz import fuzz

        return fuzz.ratio(text, reference) / 100
    words, expected = _words(text), _words(reference)
    if not words or not expected:
        return 0.0
    if measure.startswith("rouge_"):
        of = measure.removeprefix("rouge_")
        return _rouge_l(words, expected) if of == "l" else _rouge_n(words, expected, int(of))
    return _of_translations(measure, words, expected)


def _of_translations(measure: Measure, words: list[str], expected: list[str]) -> float:
    from nltk.translate import bleu_score, gleu_score, meteor_score

    if measure == "gleu":
        return float(gleu_score.sentence_gleu([expected], words))
    if measure == "meteor":
        return float(meteor_score.single_meteor_score(expected, words, wordnet=_NoSynonyms()))
    smoothing = bleu_score.SmoothingFunction().method1
    return float(bleu_score.sentence_bleu([expected], words, smoothing_function=smoothing, auto_reweigh=True))


class _NoSynonyms:
    """A dictionary of nltk's form that knows no word."""

    def synsets(self, word: str) -> list[str]:
        return []


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _rouge_n(words: Sequence[str], expected: Sequence[str], length: int) -> float:
    """Return the F1 of the runs of `length` words that both have (Lin 2004, section 2)."""
    runs, others = (
        Counter(tuple(each[start : start + length]) for start in range(len(each) - length + 1))
        for each in (words, expected)
    )
    return _f1((runs & others).total(), runs.total(), others.total())


def _rouge_l(words: Sequence[str], expected: Sequence[str]) -> float:
    """Return the F1 of the longest common subsequence (Lin 2004, section 3)."""
    from rapidfuzz.distance import LCSseq

    return _f1(LCSseq.similarity(words, expected), len(words), len(expected))


def _f1(common: int, count: int, expected: int) -> float:
    return 2 * common / (count + expected) if count + expected else 0.0
