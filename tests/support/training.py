"""Short runs of the trainer: a config, rewards that vary, and the reported events."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibrl_core.config import TrainConfig
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import Score, Scorer, labels_with

MISSED = "4"  # the answer of a prompt whose verdicts `score_or_miss` leaves out
DIGITS = {"builtin": "digits", "split": "train", "rows": 6}


def config(**changes: Any) -> Any:
    return TrainConfig.model_validate(
        {
            "model": {"builtin": "tiny-vlm"},
            "data": DIGITS,
            "algorithm": {"type": "calibrl", "mini_batches": 2},
            "rollout": {"group_size": 2, "max_completion_tokens": 6},
            "optimizer": {"lr": 1e-3},
            "prompts_per_step": 2,
            "steps": 4,
            "samples": {"every_steps": 2, "groups": 1},
            "checkpoints": {"every_steps": 2},
        }
        | changes
    )


def score_by_hash(self: Scorer, inputs: Sequence[RewardInput]) -> list[Score]:
    """Replace `Scorer.grade`: a fresh model is never right, so the hash of each completion decides."""
    scores = []
    for text in (seen.completion for seen in inputs):
        right = zlib.crc32(text.encode()) % 2 == 1
        scores.append(Score({"math": float(right), "format": 0.0}, float(right), right, right))
    return scores


def score_or_miss(self: Scorer, inputs: Sequence[RewardInput]) -> list[Score]:
    """Replace `Scorer.grade`: `score_by_hash`, but without verdicts on a prompt if a reward has an `on_failure`."""
    scores = score_by_hash(self, inputs)
    if not labels_with(self._rewards, "drop_group") | labels_with(self._rewards, "stop"):
        return scores
    missing = Score({"math": 0.0, "format": 0.0}, 0.0, False, False, "math: no answer", ("math",))
    return [missing if seen.truth == MISSED else score for seen, score in zip(inputs, scores, strict=True)]


def score_by_letters(self: Scorer, inputs: Sequence[RewardInput]) -> list[Score]:
    """Replace `Scorer.grade`: the share of small letters in a completion, which a fresh model learns fast."""
    scores = []
    for text in (seen.completion for seen in inputs):
        share = sum("a" <= letter <= "z" for letter in text) / max(1, len(text))
        scores.append(Score({"math": share, "format": 0.0}, share, share > 0.5, share > 0.5))
    return scores


def events(run_dir: Path) -> list[Any]:
    """Return the complete lines of a run's event file; empty before the file exists."""
    file = run_dir / "events.jsonl"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""  # the last line may be half written
    return [json.loads(line) for line in whole.splitlines()]


def of_type(run_dir: Path, type: str) -> list[Any]:
    """Return a run's events of one type."""
    return [event for event in events(run_dir) if event["type"] == type]
