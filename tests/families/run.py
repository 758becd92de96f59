"""Runs of a family: comparison with transformers, and short training runs through `train`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from calibrl_core.config import PathModel, TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.self_check import _log_probabilities
from calibrl_core.train import train
from tests.support.training import of_type

LARGEST_DIFFERENCE = 1e-4  # nats, per token, in float32
SIZES = ((56, 56), (112, 56), (84, 84))  # of the images, in pixels


@dataclasses.dataclass(frozen=True)
class Result:
    """A row of the table of families."""

    family: str
    model: str = "–"
    processor: str = "–"
    without_torchvision: str = "–"
    packs: str = "–"
    difference: str = "–"
    ran: str = "–"


def write_images(folder: Path) -> list[Path]:
    """Write three images of different sizes with random pixels; return their files."""
    files = []
    for number, (width, height) in enumerate(SIZES):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 255, (height, width, 3), generator=generator, dtype=torch.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels.numpy()).save(files[-1])
    return files


def examples(images: list[Path]) -> list[Example]:
    """Return a prompt without images, and with `images` one with an image and two with two images."""
    rows: list[tuple[str, tuple[bytes, ...]]] = [("What is 3 + 4?", ())]
    if images:
        one, wide, large = (file.read_bytes() for file in images)
        rows = [
            ("Is <image> below <image>?", (wide, large)),
            ("Compare them.", (large, one)),
            ("<image>What do you see?", (one,)),
            *rows,
        ]
    return [Example(id=text, question=text, answer="7", images=pictures) for text, pictures in rows]


def write_rows(folder: Path, with_images: bool) -> Path:
    """Write a dataset of four rows: the first two have two images, the third has one; without images: four texts."""
    files = [file.name for file in write_images(folder)]
    pictures = [files[1:], files[::2], files[:1], []] if with_images else [[]] * 4
    texts = ["Is <image> below <image>?", "Compare them.", "<image>What?", "What is 3 + 4?"]
    rows = [
        {"question": text if with_images else text.replace("<image>", "it"), "images": shown, "answer": "7"}
        for text, shown in zip(texts, pictures, strict=True)
    ]
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def largest_difference(policy: Policy, asked: list[Example]) -> float:
    """Return the largest difference (nats) of sampler and update, packed and not, from transformers' own pass."""
    largest = 0.0
    for example in asked:
        with torch.no_grad():
            found = _log_probabilities(policy, example)
        expected = found.pop("transformers")
        assert expected.std() > 1e-3, "all tokens are equally likely: the comparison shows nothing"
        largest = max(largest, *(float((one - expected).abs().max()) for one in found.values()))
    return largest


def trained(source: dict[str, Any], rows: Path, run_dir: Path, **changes: Any) -> Path:
    """Train two steps of GRPO: KL divergence, entropy bonus, two updates per step. Return the checkpoint."""
    config = TrainConfig.model_validate(
        {
            "model": source,
            "data": {"path": str(rows)},
            "algorithm": {"type": "grpo", "mini_batches": 2, "kl_coef": 0.1, "entropy_coef": 0.01},
            "rollout": {"group_size": 2, "max_completion_tokens": 5},
            "optimizer": {"lr": 1e-3},
            "prompts_per_step": 2,
            "steps": 2,
            "shuffle_data": False,
            "samples": {"every_steps": 2, "groups": 0},
            "checkpoints": {"every_steps": 2},
        }
        | changes
    )
    result = train(config, EventFile(run_dir), lambda: False)
    values = [event["values"] for event in of_type(run_dir, "metrics")]
    assert len(values) == 2
    assert all(math.isfinite(value) for step in values for value in step.values())
    assert all(step["loss/skipped_updates"] == 0 for step in values)
    assert max(step["loss/grad_norm"] for step in values) > 0
    return Path(result["result"]["last_checkpoint"])


def reloaded(checkpoint: Path, start: Policy) -> Policy:
    """Return the policy of a checkpoint, which differs from the one that the run started from."""
    policy = load_policy(PathModel(path=str(checkpoint)))
    before: dict[str, Tensor] = start.model.state_dict()
    after = policy.model.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    return policy


def run_family(folder: Path, rows: Path, asked: list[Example], work: Path) -> tuple[Policy, float]:
    """Compare a model with transformers, train it whole, and reload it.

    Return the policy at the start and its largest difference (nats).
    """
    policy = load_policy(PathModel(path=str(folder)))
    difference = largest_difference(policy, asked)
    assert difference <= LARGEST_DIFFERENCE
    whole = trained({"path": str(folder)}, rows, work / "whole")
    assert largest_difference(reloaded(whole, policy), asked[:1]) <= LARGEST_DIFFERENCE
    return policy, difference


def run_lora(folder: Path, rows: Path, asked: list[Example], work: Path, start: Policy) -> None:
    """Train a model by LoRA with recomputed activations, and reload it."""
    options = {"lora": {"rank": 2, "alpha": 4}, "gradient_checkpointing": True}
    adapted = trained({"path": str(folder), **options}, rows, work / "lora")
    assert largest_difference(reloaded(adapted, start), asked[:1]) <= LARGEST_DIFFERENCE
