"""Compares the verifier `math` with other graders on pairs of truth and answer, for `make bench-verifiers`.

`bench/verdict_pairs.jsonl` has the pairs, written by hand without looking at any grader: {class, truth, answer, right}.
`bench/public_pairs.jsonl` has pairs of the tests of other graders, with the verdicts of those tests and in addition
{source, licence}: they are counted apart. Two errors are counted: falsely right (a wrong answer passes) and falsely
wrong (a right answer fails). A verdict that takes more than VERDICT_SECONDS is a failed one: the answer counts as
wrong, as in training.
"""

import json
import select
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
    suite: str  # the repository that the pair is from; empty for our own pairs


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


def read_pairs(name: str) -> list[Pair]:
    """Return the pairs of a file of this folder."""
    rows = map(json.loads, (FOLDER / name).read_text().splitlines())
    return [
        Pair(row["class"], row["truth"], row["answer"], row["right"], row.get("source", "").partition(",")[0])
        for row in rows
    ]


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
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(
            _command(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, text=True, bufsize=1
        ) as peer,
    ):
        assert peer.stdin
        try:
            if _line(peer, START_SECONDS) != "ready\n":
                raise RuntimeError(no_start(name, messages))
            for pair in pairs:
                peer.stdin.write(json.dumps([pair.answer, pair.truth]) + "\n")
                if not (line := _line(peer, VERDICT_SECONDS)):
                    return [*found, Judgement(right=False, seconds=VERDICT_SECONDS)]
                found.append(Judgement(*json.loads(line)))
        finally:
            peer.kill()
    return found


def no_start(name: str, messages: IO[str]) -> str:
    """Return the error of a grader that does not start, with the last line that it wrote."""
    messages.seek(0)
    last = next((line for line in reversed(messages.read().splitlines()) if line.strip()), "no message")
    return f"{name} does not start ({last}): remove .venv-graders, then make bench-verifiers installs it again"


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


def error_counts(
    pairs: Sequence[Pair], found: Mapping[str, Sequence[Judgement]], key: Callable[[Pair], str]
) -> dict[str, Counter[str]]:
    """Return the number of errors per grader and per key of a pair."""
    return {
        name: Counter(key(pair) for pair, verdict in zip(pairs, verdicts, strict=True) if pair.right != verdict.right)
        for name, verdicts in found.items()
    }


def suite_table(pairs: Sequence[Pair], found: Mapping[str, Sequence[Judgement]]) -> str:
    """Return a Markdown table of the verdicts that differ from those of each public suite, one column per grader."""
    counts = error_counts(pairs, found, lambda pair: pair.suite)
    suites = Counter(pair.suite for pair in pairs)
    head = f"| Suite | Pairs | {' | '.join(found)} |\n|---|---|{'---|' * len(found)}\n"
    return head + "".join(
        f"| {suite} | {count} | {' | '.join(str(counts[name][suite]) for name in found)} |\n"
        for suite, count in suites.items()
    )


def worse_classes(pairs: Sequence[Pair], found: Mapping[str, Sequence[Judgement]]) -> str:
    """Return a Markdown table of the classes in which another grader makes fewer errors than `math`."""
    counts = error_counts(pairs, found, lambda pair: pair.kind)
    peers = [name for name in found if name != OURS]
    lines = []
    for kind, count in sorted(Counter(pair.kind for pair in pairs).items()):
        best = min(peers, key=lambda name: counts[name][kind])
        if counts[best][kind] < counts[OURS][kind]:
            lines.append(f"| {kind} | {count} | {counts[OURS][kind]} | {counts[best][kind]} ({best}) |\n")
    return "| Class | Pairs | Errors of `math` | Fewest errors of a peer |\n|---|---|---|---|\n" + "".join(lines)


def main() -> None:
    """Judge all pairs by all graders, print the tables and write the results."""
    console, own, public = Console(), read_pairs("verdict_pairs.jsonl"), read_pairs("public_pairs.jsonl")
    graders = [OURS, *GRADERS]
    for name in graders:  # a grader that does not start is known before the others have judged for minutes
        judge(name, own[:1])
    found: dict[str, Sequence[Judgement]] = {}
    for name in graders:
        console.print(f"{name} ...", highlight=False)
        found[name] = judge(name, [*own, *public])
    on_own = {name: verdicts[: len(own)] for name, verdicts in found.items()}
    on_public = {name: verdicts[len(own) :] for name, verdicts in found.items()}
    by_grader = {name: errors(own, verdicts) for name, verdicts in on_own.items()}
    goals = rows(by_grader[OURS], by_grader["Math-Verify"])
    path = write("verifiers", goals)
    console.print(circumstances(["math-verify"]), soft_wrap=True)
    tables = (grader_table(by_grader), worse_classes(own, on_own), suite_table(public, on_public), table(goals))
    console.print(f"\n{len(own)} pairs", *tables, path, sep="\n\n", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    serve(own_grader) if OURS in sys.argv else main()
