"""Made-up output of a run: metrics, histograms and a sampled completion; and a dataset."""

import io
import math
import random
from collections.abc import Sequence
from typing import Any

from PIL import Image

BINS = 24
VALUES = 200  # per histogram
SHAPES = (  # name, range, centre and spread of the values
    ("rareness", 0, 1, 0.4, 0.15),
    ("rareness/wrong", 0, 1, 0.8, 0.1),
    ("expert/gap", -10, 14, 4, 3),
    ("expert/gap_correct", -10, 14, 6, 2),
)
CONSTANT = (
    "exploration/groups_none",
    "exploration/groups_some",
    "exploration/groups_all",
    "exploration/pass_at_k",
    "exploration/distinct_answers",
    "exploration/common_wrong_share",
    "exploration/solved_then_lost",
    "exploration/logprob_advantage_cov",
    "expert/damped_share",
    "expert/opposing_share",
    "expert/probe_nll",
    "expert/probe_gap",
    "loss/policy_grad_norm",
    "loss/guidance_grad_norm",
    "loss/guidance_cosine",
    "loss/guidance_opposing_share",
    "ratio/mean",
    "ratio/max",
    "ratio/ess",
    "kl/approx",
    "length/max",
)

PREVIEW: dict[str, Any] = {
    "row": 1,
    "earlier": ["system: be brief"],
    "question": "What is it?",
    "answer": "7",
    "expert": "It is 7.",
    "data_source": None,
    "images": ["data:image/png;base64,iVBORw0KGgo="],
    "image_count": 1,
}
DATASET = {
    "project": "default",
    "user": "ann",
    "name": "figures",
    "format": "jsonl",
    "bytes": 12,
    "rows": 9,
    "columns": {},
    "has_columns": ["question", "answer"],
    "has_experts": True,
    "hub": None,
}


def metrics_of(step: int) -> dict[str, float | str]:
    """Return the metrics of a step of a healthy run. The gradient norm of step 40 is not finite."""
    noise = random.Random(step)
    learned = 1 - math.exp(-step / 90)
    accuracy = 0.42 + 0.3 * learned + noise.gauss(0, 0.05)
    over, under = 0.3 - 0.15 * learned, 0.12
    values: dict[str, float | str] = {
        "reward/mean": accuracy + 0.1,
        "reward/std": 0.4,
        "reward/answer_accuracy": min(accuracy, 1),
        "reward/strict_accuracy": min(max(accuracy - 0.04, 0), 1),
        "exploration/entropy": 0.7 - 0.35 * learned + noise.gauss(0, 0.02),
        "exploration/active_groups": 0.8 - 0.2 * learned + noise.gauss(0, 0.06),
        "rareness/mean": 0.4 - 0.1 * learned + noise.gauss(0, 0.02),
        "rareness/correct": 0.5 - 0.2 * learned + noise.gauss(0, 0.03),
        "rareness/wrong": 0.35 + 0.1 * learned + noise.gauss(0, 0.03),
        "expert/gap_mean": 4 + learned + noise.gauss(0, 0.3),
        "expert/gap_correct": 4.5 + 1.5 * learned + noise.gauss(0, 0.4),
        "expert/gap_wrong": 3.6 - learned + noise.gauss(0, 0.4),
        "expert/quadrant_underconfident_correct": under,
        "expert/quadrant_confident_correct": 1 - under - over - 0.1,
        "expert/quadrant_humble_wrong": 0.1,
        "expert/quadrant_overconfident_wrong": over,
        "expert/nll": 5 - learned + noise.gauss(0, 0.1),
        "loss/policy": noise.gauss(0, 0.02),
        "loss/guidance": 0.3 - 0.1 * learned + noise.gauss(0, 0.02),
        "loss/total": 0.03 + noise.gauss(0, 0.02),
        "loss/grad_norm": "NaN" if step == 40 else abs(noise.gauss(0.6, 0.2)),
        "length/mean": 26 + noise.gauss(0, 1),
        "length/truncated_share": 0.02,
        "clip/low_share": 0.01 + noise.random() / 100,
        "clip/high_share": 0.02 + noise.random() / 100,
        "clip/dual_share": 0.0,
        "perf/step_seconds": 0.4,
        "perf/rollout_seconds": 0.2,
        "perf/update_seconds": 0.15,
        "perf/tokens_per_second": 4000.0,
        "perf/memory_bytes": 2.0**30,
    } | dict.fromkeys(CONSTANT, 0.4)
    if step % 20 == 0:
        values |= {"validation/accuracy": 0.42 + 0.3 * learned, "validation/strict_accuracy": 0.4 + 0.3 * learned}
    return values


def histograms_of(steps: Sequence[int]) -> list[tuple[int, str, list[float], list[int]]]:
    """Return the histograms of some steps as rows of (step, name, edges, counts). All steps have the same counts."""
    noise = random.Random(0)
    rows = []
    for name, low, high, centre, spread in SHAPES:
        edges = [low + (high - low) * edge / BINS for edge in range(BINS + 1)]
        counts = [0] * BINS
        for _ in range(VALUES):
            share = (noise.gauss(centre, spread) - low) / (high - low)
            counts[min(max(int(share * BINS), 0), BINS - 1)] += 1
        rows += [(step, name, edges, counts) for step in steps]
    return rows


def completion(text: str, *, passed: bool, entropy: float = 0.2) -> dict[str, Any]:
    """Return a rollout of a sampled group, in tokens of four characters. The last of several tokens has no gap."""
    tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
    gaps: list[float | None] = [1.5] * len(tokens)
    if len(tokens) > 1:
        gaps[-1] = None
    return {
        "text": text,
        "tokens": tokens,
        "logprobs": [-entropy] * len(tokens),
        "entropies": [entropy] * len(tokens),
        "gaps": gaps,
        "rewards": {"math": float(passed), "format": 1.0},
        "reward": 1.1 if passed else 0.1,
        "advantage": 0.7 if passed else -0.3,
        "passed": passed,
        "truncated": not passed,
    }


def picture() -> bytes:
    """Return a PNG file of 56 x 56 pixels."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((56, 56)).save(buffer, format="PNG")
    return buffer.getvalue()
