"""Compares the verifier `math` with other graders on pairs of truth and answer, for `make bench-verifiers`.

`bench/verdict_pairs.jsonl` has the pairs, written by hand without looking at any grader: {class, truth, answer, right}.
Two errors are counted: falsely right (a wrong answer passes) and falsely wrong (a right answer fails). A verdict that
takes more than VERDICT_SECONDS is a failed one: the answer counts as wrong, as in training.
"""

import json
import select
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.graders import GRADERS, Grader, serve
from bench.report import ReportRow, at_most, circumstances, table, write
from calibrl_core.verifiers import MathReward
from calibrl_core.verifiers.base import Deferred

FOLDER = Path(__file__).parent
OURS = "CalibRL, `math`"
PEERS = FOLDER.parent / ".venv-graders" / "bin" / "python"
VERDICT_SECONDS = 20.0  # a starved process needs more than the graders' own limits of 3 to 10 s
START_SECONDS = 300.0


@dataclass(frozen=True)
class Pair:
    """A truth and an answer, with the right verdict."""

    kind: str
    truth: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Judgement:
    """The verdict of a grader on a pair."""

    right: bool
    seconds: float


@dataclass(frozen=True)
class Errors:
    """Errors of a grader, as shares of the wrong and of the right pairs, and its time."""

    falsely_right: float
    falsely_wrong: float
    agreement: float  # share of all pairs
    microseconds: float  # median per verdict


def read_pairs(path: Path = FOLDER / "verdict_pairs.jsonl") -> list[Pair]:
    """Return the pairs of a file."""
    rows = map(json.loads, path.read_text().splitlines())
    return [Pair(row["class"], row["truth"], row["answer"], row["right"]) for row in rows]


def our_verdict(answer: str, truth: str) -> bool:
    """Return the verdict of the verifier `math`, computed in this process as its worker computes it."""
    verifier = MathReward()
    found = verifier.score(f"<answer>{answer}</answer>", truth)
    return (verifier.judge(found.text, found.truth) if isinstance(found, Deferred) else found) >= 0.5


def own_grader() -> Grader:
    """Return `our_verdict` after its libraries are loaded."""
    MathReward().prepare()
    return our_verdict


def judge(name: str, pairs: Sequence[Pair]) -> list[Judgement]:
    """Return the verdicts of a grader, from a process that is killed and replaced if a verdict takes too long."""
    found: list[Judgement] = []
    while len(found) < len(pairs):
        found += _until_too_slow(name, pairs[len(found) :])
    return found


def _command(name: str) -> list[str]:
    if name == OURS:
        return [sys.executable, "-m", "bench.verifiers", OURS]
    return [str(PEERS), "-P", str(FOLDER / "graders.py"), name]


def _until_too_slow(name: str, pairs: Sequence[Pair]) -> list[Judgement]:
    found: list[Judgement] = []
    with subprocess.Popen(
        _command(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    ) as peer:
        assert peer.stdin
        try:
            if _line(peer, START_SECONDS) != "ready\n":
                raise RuntimeError(f"{name} does not start: run `make bench-verifiers`, which installs it")
            for pair in pairs:
                peer.stdin.write(json.dumps([pair.answer, pair.truth]) + "\n")
                if not (line := _line(peer, VERDICT_SECONDS)):
                    return [*found, Judgement(right=False, seconds=VERDICT_SECONDS)]
                found.append(Judgement(*json.loads(line)))
        finally:
            peer.kill()
    return found


def _line(peer: subprocess.Popen[str], seconds: float) -> str:
    """Return the next line of a process; nothing if it takes too long or the process ended."""
    assert peer.stdout
    return peer.stdout.readline() if select.select([peer.stdout], [], [], seconds)[0] else ""


def errors(pairs: Sequence[Pair], found: Sequence[Judgement]) -> Errors:
    """Return the shares of errors of a grader's verdicts."""
    wrong = [verdict.right for pair, verdict in zip(pairs, found, strict=True) if not pair.right]
    right = [verdict.right for pair, verdict in zip(pairs, found, strict=True) if pair.right]
    return Errors(
        falsely_right=sum(wrong) / len(wrong),
        falsely_wrong=1 - sum(right) / len(right),
        agreement=sum(p.right == v.right for p, v in zip(pairs, found, strict=True)) / len(pairs),
        microseconds=1e6 * statistics.median(verdict.seconds for verdict in found),
    )


def rows(ours: Errors, peer: Errors) -> list[ReportRow]:
    """Return the goals against Math-Verify."""
    return [
        at_most("falsely right, share of wrong answers", ours.falsely_right, peer.falsely_right, "", 1 / 3),
        at_most("falsely wrong, share of right answers", ours.falsely_wrong, peer.falsely_wrong, "", 1 / 2),
        at_most("median time per verdict", ours.microseconds, peer.microseconds, "us", 1.0),
    ]


def grader_table(by_grader: dict[str, Errors]) -> str:
    """Return a Markdown table of all graders."""
    head = "| Grader | Agreement | Falsely right | Falsely wrong | µs per verdict |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {name} | {100 * one.agreement:.1f} % | {100 * one.falsely_right:.1f} % | "
        f"{100 * one.falsely_wrong:.1f} % | {one.microseconds:,.0f} |\n"
        for name, one in by_grader.items()
    )


def class_table(pairs: Sequence[Pair], ours: Sequence[Judgement], peer: Sequence[Judgement]) -> str:
    """Return a Markdown table of the errors per class, of ours and of Math-Verify."""
    counts = Counter(pair.kind for pair in pairs)
    wrong = [
        Counter(pair.kind for pair, verdict in zip(pairs, of, strict=True) if pair.right != verdict.right)
        for of in (ours, peer)
    ]
    head = "| Class | Pairs | Errors of `math` | Errors of Math-Verify |\n|---|---|---|---|\n"
    return head + "".join(
        f"| {kind} | {count} | {wrong[0][kind]} | {wrong[1][kind]} |\n" for kind, count in sorted(counts.items())
    )


def main() -> None:
    """Judge all pairs by all graders, print the tables and write the results."""
    console, pairs = Console(), read_pairs()
    found = {}
    for name in [OURS, *GRADERS]:
        console.print(f"{name} ...", highlight=False)
        found[name] = judge(name, pairs)
    by_grader = {name: errors(pairs, verdicts) for name, verdicts in found.items()}
    ours, peer = found[OURS], found["Math-Verify"]
    tables = f"{len(pairs)} pairs\n\n{grader_table(by_grader)}\n{class_table(pairs, ours, peer)}"
    goals = rows(by_grader[OURS], by_grader["Math-Verify"])
    path = write("verifiers", goals)
    console.print(circumstances(["math-verify"]), soft_wrap=True)
    console.print(f"\n{tables}\n{table(goals)}\n\n{path}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    serve(own_grader) if OURS in sys.argv else main()
