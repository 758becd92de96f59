"""Verdicts on pairs of truth and answer, by the class of notation: tests/data/verdicts.jsonl. Verdicts of a worker are
computed in this process.
"""

import json
import logging
from collections import defaultdict
from typing import Any

import pytest

from calibrl_core.verifiers import ChoiceReward, FormatReward, MathReward, NumericReward
from calibrl_core.verifiers.base import Deferred
from calibrl_core.verifiers.explain import CHANGES, changes
from calibrl_core.verifiers.math import CODES, EXPRESSIONS, WORDS
from calibrl_core.verifiers.notation import STEPS, reductions
from tests.support import ROOT

VERIFIERS = {one.type: one for one in (MathReward(), NumericReward(), ChoiceReward())}
PAIRS: defaultdict[str, list[Any]] = defaultdict(list)
for line in (ROOT / "tests" / "data" / "verdicts.jsonl").read_text().splitlines():
    pair = json.loads(line)
    PAIRS[pair["class"]].append(pair)


def verdict(pair: Any) -> float:
    verifier = VERIFIERS[pair["verifier"]]
    found = verifier.score(f"<answer>{pair['answer']}</answer>", pair["truth"])
    return verifier.judge(found.text, found.truth) if isinstance(found, Deferred) else found


@pytest.mark.parametrize("notation", PAIRS)
def test_verdicts(notation: str) -> None:
    assert [pair for pair in PAIRS[notation] if verdict(pair) != float(pair["right"])] == []


@pytest.mark.slow
def test_public_pairs_differ_where_the_docs_say() -> None:
    rows = map(json.loads, (ROOT / "bench" / "public_pairs.jsonl").read_text().splitlines())
    differ = [row for row in rows if verdict({"verifier": "math", **row}) != float(row["right"])]
    page = (ROOT / "docs" / "reference" / "verifiers.md").read_text()
    assert len(differ) == 14
    assert [row for row in differ if f"`{row['answer'].strip('$')}`" not in page] == []


@pytest.mark.parametrize("verifier", [MathReward(), NumericReward()], ids=lambda one: one.type)
def test_a_prepared_verifier_hides_the_warnings_of_its_library(verifier: MathReward | NumericReward) -> None:
    library = logging.getLogger("math_verify")
    library.setLevel(logging.WARNING)
    verifier.prepare()
    assert not library.isEnabledFor(logging.WARNING)


def test_a_truth_is_right_as_an_answer() -> None:
    pairs = [pair | {"answer": pair["truth"]} for of_class in PAIRS.values() for pair in of_class]
    plain = [pair for pair in pairs if not any(sign in pair["truth"] for sign in ("<", "####", "boxed"))]
    assert len(plain) > 300 and [pair for pair in plain if verdict(pair) != 1.0] == []


def test_the_docs_have_every_step() -> None:
    page = (ROOT / "docs" / "reference" / "verifiers.md").read_text()
    assert [step.name for step in STEPS if f"| {step.name} |" not in page] == []
    rows = {one: f"| {one.name} | `{one.of}` | {one.meaning} |" for one in CHANGES}
    assert [one.name for one, row in rows.items() if row not in page] == []


@pytest.mark.parametrize(
    ("verifier", "rule", "text", "other", "found"),
    [
        ("math", "", r"2 \pm 1", "1, 3", {"two values": "2 + 1, 2 - 1"}),
        ("math", "", "x", "y", {}),
        ("math", "", r"\angle A = 75", "75", {"names": "75"}),
        ("math", "", r"\angle A = 75", r"\angle A = 70", {"names": "75"}),
        ("math", WORDS, "The Circle", "circle", {"words": "circle"}),
        ("math", WORDS, "dne", "does not exist", {"words": "does not exist"}),
        ("math", CODES, "H_{2}O", "H2O", {"codes": "h2o"}),
        ("math", EXPRESSIONS, "180 degree-2x", "180-2x", {"missing degrees": "180  -2x"}),
        ("math", EXPRESSIONS, r"\sqrt 3", "1.73", {"parser": r"\sqrt{3}"}),
        ("math", EXPRESSIONS, r"\frac{1}{4} = 25%", "0.25", {"hundredths": r"\frac{1}{4} = \frac{25}{100}"}),
        ("math", "", "C(5,2)", "10", {"choices": r"\binom{5}{2}"}),
        ("math", "", "C(5,2)", "(5,2)", {"names": "(5,2)"}),
        ("math", EXPRESSIONS, "2AB", "2 BC", {"lines of figures": "2q_{AB}"}),
        ("numeric", "", "x = 5", "5", {"variable": "5"}),
        ("choice", "", "The correct option is B", "B", {"call": "B"}),
    ],
)
def test_changes_after_the_steps_are_named(
    verifier: str, rule: str, text: str, other: str, found: dict[str, str]
) -> None:
    assert {name: changed for name, _, changed in changes(text, other, verifier, rule)} == found


def test_the_steps_name_what_they_change() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS)
    found = [(step.name, text) for step, text in reductions("The answer is \\boxed{１,２００√12}")]
    assert found == [
        ("unwrap", "１,２００√12"),
        ("width", "1,200√12"),
        ("roots", "1,200\\sqrt{12}"),
        ("thousands", "1200\\sqrt{12}"),
    ]


@pytest.mark.parametrize("blank", [" ", "\n", "\t \n"])
def test_a_blank_thought_or_answer_has_no_format(blank: str) -> None:
    assert FormatReward().score(f"<think>{blank}</think><answer>7</answer>", "7") == 0.0
    assert FormatReward().score(f"<think>a</think><answer>{blank}</answer>", "7") == 0.0
    assert FormatReward(answer_in="boxed").score(f"<think>{blank}</think> \\boxed{{7}}", "7") == 0.0
