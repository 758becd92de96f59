"""The result of a what-if, as the trainer reports it."""

from typing import Any

from calibrl.schemas import ChangedCompletion, ComparedUpdate, WhatIf


def update(name: str, **changes: Any) -> ComparedUpdate:
    fields: dict[str, Any] = {
        "name": name,
        "changes": {},
        "applied": True,
        "gradient_norm": 2.0,
        "gradient_cosine": 1.0,
        "update_norm": 0.5,
        "update_cosine": 1.0,
        "change": 0.001,
        "change_correct": 0.002,
        "change_wrong": -0.003,
        "quadrants": {"confident_correct": 0.004, "humble_wrong": -0.005},
    }
    return ComparedUpdate(**fields | changes)


def completion(**changes: Any) -> ChangedCompletion:
    fields: dict[str, Any] = {
        "prompt_id": "sums/1",
        "prompt": "What is 3 + 4?",
        "passed": True,
        "advantage": 0.5,
        "tokens": ["7", "<end>"],
        "left_out": 3,
        "gaps": [1.0, None],
        "changes": [[0.01, -0.02], [0.03, 0.0]],
    }
    return ChangedCompletion(**fields | changes)


def what_if_result(**changes: Any) -> dict[str, Any]:
    """Return a result with the update of the run and one variant."""
    fields: dict[str, Any] = {
        "step": 51,
        "update": 0,
        "learning_rate": 1e-4,
        "rollouts": 4,
        "tokens": 40,
        "quadrant_tokens": {
            "confident_correct": 10,
            "underconfident_correct": 0,
            "overconfident_wrong": 0,
            "humble_wrong": 20,
        },
        "updates": [update("own"), update("slope 0", changes={"negative_slope": 0.0}, gradient_cosine=0.75)],
        "completions": [completion()],
    }
    return WhatIf(**fields | changes).model_dump(mode="json")
