"""A chain of jobs to start from: warm-up, training and evaluation, each of which begins with the model before it."""

import re
from typing import Any, Literal

Part = dict[str, Any]
FirstAlgorithm = Literal["calibrl", "grpo"]
TINY = "tiny-vlm"  # the built-in model, whose weights are random
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REWARDS = [{"type": "math", "weight": 1.0}, {"type": "format", "weight": 0.1}]


def chain(
    name: str,
    model: str,
    data: Part,
    validation: Part | None = None,
    test: Part | None = None,
    *,
    algorithm: FirstAlgorithm = "calibrl",
) -> list[dict[str, Any]]:
    """Return the specs of a pipeline: a warm-up on the experts if the model is `tiny-vlm`, a training, and, if there is
    test data, an evaluation that compares the model before and after the training.

    Args:
        name: beginning of the names of the jobs.
        model: `tiny-vlm`, a name of the hub (`org/name`), or a folder.
        data: training data, as in a spec: `{"path": ...}`, `{"dataset": ID}` or `{"builtin": "digits"}`.
        validation: validation data; the checkpoint with the best accuracy on it is evaluated.
        test: data of the evaluation.
        algorithm: of the training. `calibrl` needs experts.
    """
    tokens = 64 if model == TINY else 1024
    validated = {"data": validation, "every_steps": 20, "samples": 4} if validation else None
    warm_up = _warm_up(f"{name}-warm-up", data, validated, tokens)
    first = {"from_job": f"@{warm_up['name']}"} if model == TINY else _source(model)
    training: Part = {
        "kind": "train",
        "name": f"{name}-{algorithm}",
        "model": first,
        "data": data,
        "validation": validated,
        "algorithm": {"type": algorithm, "mini_batches": 1},
        "rewards": _REWARDS,
        "rollout": {"group_size": 8, "temperature": 1.0, "max_completion_tokens": tokens},
        "optimizer": {"lr": 1e-4 if model == TINY else 1e-6},
        "prompts_per_step": 8,
        "steps": 100,
        "checkpoints": {"every_steps": 50},
    }
    evaluation: Part = {
        "kind": "evaluate",
        "name": f"{name}-evaluation",
        "models": [first, {"from_job": f"@{training['name']}"}],
        "data": [test],
        "rollout": {"samples": 8, "greedy": True, "max_completion_tokens": tokens},
    }
    specs = [*([warm_up] if model == TINY else []), training, *([evaluation] if test else [])]
    return [{field: value for field, value in spec.items() if value is not None} for spec in specs]


def _warm_up(name: str, data: Part, validated: Part | None, tokens: int) -> Part:
    return {
        "kind": "train",
        "name": name,
        "model": {"builtin": TINY},
        "data": data,
        "validation": validated and {**validated, "stop_at_accuracy": 0.4},
        "algorithm": {"type": "sft"},
        "rollout": {"max_completion_tokens": tokens},
        "optimizer": {"lr": 1e-3},
        "prompts_per_step": 32,
        "steps": 800,
    }


def _source(model: str) -> Part:
    return {"hub": model} if _HUB_NAME.fullmatch(model) else {"path": model}
