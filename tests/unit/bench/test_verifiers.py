"""Errors of graders on pairs, and their tables."""

import io

from bench import verifiers
from bench.verifiers import OURS, Judgement, Pair

PAIRS = [
    Pair("units", "5 m", "5 m", True, "one/suite"),
    Pair("units", "5 m", "5 km", False, "one/suite"),
    Pair("sets", "1, 2", "2, 1", True, "other/suite"),
    Pair("sets", "1, 2", "1", False, "other/suite"),
    Pair("sets", "1, 2", "2", False, "other/suite"),
]


def judged(*verdicts: bool) -> list[Judgement]:
    return [Judgement(right, 0.001 * (number + 1)) for number, right in enumerate(verdicts)]


def test_errors_are_shares_of_the_wrong_and_of_the_right_pairs() -> None:
    found = verifiers.errors(PAIRS, judged(True, True, False, False, False))
    assert (found.falsely_right, found.falsely_wrong, found.agreement) == (1 / 3, 1 / 2, 3 / 5)
    assert found.microseconds == 3000


def test_a_class_is_listed_if_another_grader_makes_fewer_errors() -> None:
    found = {
        OURS: judged(True, True, True, False, False),
        "first": judged(False, True, True, True, True),
        "second": judged(True, False, False, True, False),
    }
    assert verifiers.worse_classes(PAIRS, found).splitlines()[2:] == ["| units | 2 | 1 | 0 (second) |"]


def test_each_suite_counts_the_verdicts_that_differ() -> None:
    found = {OURS: judged(True, True, True, False, False), "first": judged(False, True, True, True, True)}
    assert verifiers.suite_table(PAIRS, found).splitlines() == [
        f"| Suite | Pairs | {OURS} | first |",
        "|---|---|---|---|",
        "| one/suite | 2 | 1 | 2 |",
        "| other/suite | 3 | 0 | 2 |",
    ]


def test_public_pairs_name_suite_and_licence() -> None:
    rows = verifiers.read_pairs("public_pairs.jsonl")
    assert len(rows) == 330 and {row.suite for row in rows} >= {"hendrycks/math", "volcengine/verl"}
    assert {row.suite for row in verifiers.read_pairs("verdict_pairs.jsonl")} == {""}


def test_a_grader_that_does_not_start_names_the_reason() -> None:
    messages = io.StringIO("Traceback ...\nModuleNotFoundError: No module named 'filetype'\n\n")
    assert verifiers.no_start("EvalScope", messages).startswith(
        "EvalScope does not start (ModuleNotFoundError: No module named 'filetype'): "
    )
    assert "(no message)" in verifiers.no_start("EvalScope", io.StringIO())
