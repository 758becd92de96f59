"""Scores stored completions with given verifiers, in a process of its own.

    python -m calibrl_core.rescore FILE REPORT

FILE: JSON `{"rewards": [...], "completions": [[text, truth], ...], "sandbox": {...}}`. REPORT gets one line per
completion, in order: the fields of `calibrl_core.verifiers.scorer.Score`. Lines are written in batches, so that the
results up to that point remain if this process is killed. If a verifier cannot be loaded, the last line is
`{"fault": reason}`.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy
from calibrl_core.verifiers.scorer import Scorer

AT_ONCE = 16  # completions per batch: a few that use their whole time limit delay the others only briefly
WORKERS = 2


def rescore(
    rewards: Sequence[Reward], completions: Sequence[tuple[str, str]], sandbox: SandboxPolicy = NO_PERMISSIONS
) -> Iterator[list[dict[str, Any]]]:
    """Yield the lines of the report, batch by batch."""
    try:
        with Scorer(rewards, WORKERS, sandbox) as scorer:
            for start in range(0, len(completions), AT_ONCE):
                texts, truths = zip(*completions[start : start + AT_ONCE], strict=True)
                yield [asdict(score) for score in scorer.score_all(texts, truths)]
    except PluginError as error:
        yield [{"fault": str(error)}]


def main() -> None:
    """Run the command that the module's docstring describes."""
    request = json.loads(Path(sys.argv[1]).read_text())
    rewards = TypeAdapter(list[Reward]).validate_python(request["rewards"])
    sandbox = SandboxPolicy.model_validate(request["sandbox"])
    with Path(sys.argv[2]).open("w") as report:
        for batch in rescore(rewards, request["completions"], sandbox):
            report.writelines(json.dumps(line) + "\n" for line in batch)
            report.flush()


if __name__ == "__main__":
    main()
