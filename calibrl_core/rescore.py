"""Scores stored completions with some verifiers, as a process of its own.

    python -m calibrl_core.rescore FILE REPORT

FILE: JSON `{"rewards": [...], "completions": [[text, truth], ...]}`. REPORT gets one line a completion, in order,
`{"reward", "passed", "by_verifier", "failure"}`, a batch at a time: whoever ends this process keeps what it has found.
A verifier that can't be loaded is told by a last line `{"fault": why}`.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from calibrl_core.verifiers import Reward
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.scorer import Scorer

AT_ONCE = 16  # completions: some that take all their time don't keep the others' verdicts for long
WORKERS = 2


def rescored(rewards: Sequence[Reward], completions: Sequence[tuple[str, str]]) -> Iterator[list[dict[str, Any]]]:
    """The lines of the report, by batches."""
    try:
        with Scorer(rewards, WORKERS) as scorer:
            for start in range(0, len(completions), AT_ONCE):
                texts, truths = zip(*completions[start : start + AT_ONCE], strict=True)
                yield [asdict(score) for score in scorer.score_all(texts, truths)]
    except PluginError as error:
        yield [{"fault": str(error)}]


def main() -> None:
    """The command: see the module."""
    given = json.loads(Path(sys.argv[1]).read_text())
    rewards = TypeAdapter(list[Reward]).validate_python(given["rewards"])
    with Path(sys.argv[2]).open("w") as report:
        for batch in rescored(rewards, given["completions"]):
            report.writelines(json.dumps(line) + "\n" for line in batch)
            report.flush()


if __name__ == "__main__":
    main()
