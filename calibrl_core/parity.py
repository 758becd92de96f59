"""Checks the objectives against numbers of the paper's published loss code: `python -m calibrl_core.parity FILE.npz`.

The file holds `cases`, a JSON list with the settings of each case, and the arrays of case k as `k:02d/<name>`. Inputs:
log-probabilities and mask `[B, T]`, rewards, groups and expert flags `[B]`. Results of the published code in float64:
advantages, losses, clip statistics, the approximate KL and the gradient. The functions that training calls compute
everything again, and one row per case is printed. Exit code 0: all results agree to 1e-6. 1: some do not. 2: the file
cannot be read or has the wrong format.

Two things differ from training. Here a rollout has passed if its reward exceeds a threshold, as in the published code;
training uses correctness. And the published clip statistics count expert rows; those of training do not.
"""

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
import numpy as np
import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from torch import Tensor

from calibrl_core.algorithms import GRPO, LUFFY, CalibRL, RLPlus
from calibrl_core.algorithms.base import Aggregation, PolicyGradientSettings
from calibrl_core.algorithms.clipping import clipped_policy_loss
from calibrl_core.algorithms.loss_batch import LossBatch
from calibrl_core.step.advantages import expert_advantages, group_advantages
from calibrl_core.step.token_weights import token_weights

TOLERANCE = 1e-6
WIDTH = 100  # characters of the table if the output is no terminal
ALGORITHMS: dict[str, type[PolicyGradientSettings]] = {
    "grpo": GRPO,
    "calibrl": CalibRL,
    "luffy": LUFFY,
    "rl_plus": RLPlus,
}
KINDS = {"i": "integers", "b": "booleans", "f": "floating-point numbers"}  # by numpy's letter
INPUTS = {  # name: kind, axes
    "group_index": ("i", "B"),
    "is_expert": ("b", "B"),
    "response_mask": ("b", "BT"),
    "old_logprobs": ("f", "BT"),
    "logprobs": ("f", "BT"),
    "rewards": ("f", "B"),
}
RESULTS = {
    "advantages": "BT",
    "pg_loss": "",
    "total_loss": "",
    "grad_logprobs": "BT",
    "ppo_kl": "",
    "pg_clipfrac": "",
    "pg_clipfrac_lower": "",
}


class FormatError(ValueError):
    """The file has the wrong format; the message names the place and the reason in one line."""


class CaseSettings(BaseModel):
    """Settings of a case; additional fields are ignored."""

    method: Literal["grpo", "calibrl", "luffy", "rl_plus"]
    normalise_by_std: bool
    loss_aggregation: Aggregation
    clip_low: float
    clip_high: float
    dual_clip: float
    negative_slope: float
    guidance_coefficient: float
    pass_threshold: float

    def algorithm(self) -> PolicyGradientSettings:
        """Return this project's algorithm with the settings of the case."""
        fields: dict[str, Any] = {
            "clip_low": self.clip_low,
            "clip_high": self.clip_high,
            "dual_clip": self.dual_clip,
            "normalise_by_std": self.normalise_by_std,
            "aggregation": self.loss_aggregation,
        }
        if self.method == "calibrl":
            fields |= {"negative_slope": self.negative_slope, "guidance_coef": self.guidance_coefficient}
        return ALGORITHMS[self.method].model_validate(fields)


@dataclass(frozen=True)
class Case:
    """One case: settings, and arrays by name with numbers as float64. Shapes: `INPUTS` and `RESULTS`."""

    settings: CaseSettings
    arrays: dict[str, Tensor]


def load(path: Path) -> list[Case]:
    """Return the cases of a file.

    Raises:
        FormatError: the file has the wrong format.
        OSError: the file cannot be read.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb"):  # raises the OSError of a file that is missing or not readable
            raise FormatError("not an .npz file")
    with np.load(path, allow_pickle=False) as file:
        try:
            case_settings = TypeAdapter(list[CaseSettings]).validate_python(json.loads(str(file["cases"])))
            if not case_settings:
                raise FormatError("cases is empty")
            return [Case(settings, _arrays(file, index, settings)) for index, settings in enumerate(case_settings)]
        except KeyError as error:
            raise FormatError(f"an array is missing: {error.args[0]}") from error
        except json.JSONDecodeError as error:
            raise FormatError(f"cases is no JSON list: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise FormatError(f"cases: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _arrays(file: Any, index: int, settings: CaseSettings) -> dict[str, Tensor]:
    expected = {**INPUTS, **{name: ("f", axes) for name, axes in RESULTS.items()}}
    if settings.method == "calibrl":
        expected |= {"expert_logprobs_rows": ("f", "BT"), "guided_loss": ("f", "")}
    sizes: dict[str, int] = {}
    arrays = {}
    for name, (kind, axes) in expected.items():
        array = np.asarray(file[f"{index:02d}/{name}"])
        shape = tuple(sizes.setdefault(axis, size) for axis, size in zip(axes, array.shape, strict=False))
        if array.dtype.kind != kind or array.ndim != len(axes) or array.shape != shape:
            raise FormatError(
                f"{index:02d}/{name} must be {KINDS[kind]} of shape {[sizes.get(axis, axis) for axis in axes]}, "
                f"not {array.dtype} of shape {list(array.shape)}"
            )
        arrays[name] = torch.from_numpy(array.astype(np.float64) if kind == "f" else array)
    for group in arrays["group_index"].unique():
        if int((arrays["group_index"] == group)[~arrays["is_expert"]].sum()) < 2:
            raise FormatError(f"{index:02d}/group_index: group {group} has fewer than two rollouts")
    return arrays


def largest_errors(case: Case) -> dict[str, float]:
    """Return the largest absolute error of each result; a number that is not finite counts as infinite."""
    results = _results(case)
    return {
        name: (value - case.arrays[name]).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max().item()
        for name, value in results.items()
    }


def _results(case: Case) -> dict[str, Tensor]:
    """Return every result of the case, computed by this project's functions."""
    algorithm, arrays = case.settings.algorithm(), case.arrays
    mask = arrays["response_mask"]  # [B, T]
    logprobs = arrays["logprobs"].clone().requires_grad_()
    advantages = _advantages(arrays, normalise_by_std=algorithm.normalise_by_std)
    everyone = torch.ones_like(arrays["is_expert"])
    learning = everyone if algorithm.learns_from_experts else ~arrays["is_expert"]  # [B]
    losses = algorithm.token_losses(_batch(case, logprobs, advantages, learning))
    weights = _weights(mask[learning], algorithm.aggregation)
    policy = total = (losses.policy * weights).sum()
    results = {"advantages": advantages[:, None] * mask, "pg_loss": policy}
    if losses.guidance is not None:
        results["guided_loss"] = (losses.guidance * weights).sum()
        total = policy + algorithm.guidance_weight(step=0) * results["guided_loss"]
    total.backward()
    assert logprobs.grad is not None
    clips = clipped_policy_loss(algorithm, _batch(case, logprobs, advantages, everyone))
    mean = _weights(mask, "token-mean")
    return {
        **{name: value.detach() for name, value in results.items()},
        "total_loss": total.detach(),
        "grad_logprobs": logprobs.grad,
        "ppo_kl": ((arrays["old_logprobs"] - arrays["logprobs"]) * mean).sum(),
        "pg_clipfrac": ((clips.clipped_low | clips.clipped_high) * mean).sum(),
        "pg_clipfrac_lower": (clips.clipped_dual * mean).sum(),
    }


def _weights(mask: Tensor, aggregation: Aggregation) -> Tensor:
    return token_weights(mask, aggregation, max_tokens=mask.shape[1], dtype=torch.float64)


def _batch(case: Case, logprobs: Tensor, advantages: Tensor, rows: Tensor) -> LossBatch:
    """Return the rows `[B]` bool of a case as training passes them to the algorithm."""
    arrays = case.arrays
    expert_rows = arrays.get("expert_logprobs_rows")  # the published code reads past the expert's end too
    return LossBatch(
        logprobs=logprobs[rows],
        old_logprobs=arrays["old_logprobs"][rows],
        advantages=advantages[rows],
        completion_mask=arrays["response_mask"][rows],
        passed=arrays["rewards"][rows] > case.settings.pass_threshold,
        is_expert=arrays["is_expert"][rows],
        expert_logprobs=None if expert_rows is None else expert_rows[rows],
        expert_mask=None if expert_rows is None else torch.ones_like(arrays["response_mask"][rows]),
    )


def _advantages(arrays: dict[str, Tensor], *, normalise_by_std: bool) -> Tensor:
    """Return advantages `[B]` group by group: of the rollouts, and of each expert relative to the rollouts of its
    group.
    """
    rewards, is_expert = arrays["rewards"], arrays["is_expert"]
    advantages = torch.zeros_like(rewards)
    for group in arrays["group_index"].unique():
        own = arrays["group_index"] == group
        rollouts, experts = rewards[own & ~is_expert], own & is_expert
        advantages[own & ~is_expert] = group_advantages(rollouts[None], normalise_by_std=normalise_by_std)[0]
        if experts.any():
            advantages[experts] = expert_advantages(
                rewards[experts], rollouts.expand(int(experts.sum()), -1), normalise_by_std=normalise_by_std
            )
    return advantages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m calibrl_core.parity", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE.npz")
    path = parser.parse_args(arguments).file
    try:
        cases = load(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        Console(stderr=True, soft_wrap=True).print(f"{path}: {reason}", markup=False, highlight=False)
        return 2
    table = Table("case", "method", "aggregation", "largest error", "in", "")
    failed = 0
    for index, case in enumerate(cases):
        errors = largest_errors(case)
        worst = max(errors, key=errors.__getitem__)
        failed += (wrong := errors[worst] > TOLERANCE)
        row = (str(index), case.settings.method, case.settings.loss_aggregation, f"{errors[worst]:.1e}", worst)
        table.add_row(*row, "differs" if wrong else "agrees", style="bold red" if wrong else None)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    console.print(f"{len(cases) - failed} of {len(cases)} cases agree to {TOLERANCE:g}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
