"""Specs of seeded jobs, by kind."""

from typing import Any

SPECS: dict[str, dict[str, Any]] = {
    "train": {
        "kind": "train",
        "name": "digits-calibrl",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train"},
        "algorithm": {"type": "calibrl"},
        "steps": 280,
    },
    "evaluate": {
        "kind": "evaluate",
        "name": "digits-evaluation",
        "models": [{"builtin": "tiny-vlm"}],
        "data": [{"builtin": "digits", "split": "test"}],
    },
    "audit": {
        "kind": "audit",
        "name": "digits-audit",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train"},
    },
    "what_if": {
        "kind": "what_if",
        "name": "digits-what-if",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train"},
        "steps": 280,
        "checkpoint": {"from_job": "11111111-2222-3333-4444-555555555555", "checkpoint": 50},
        "variants": [{"name": "grpo", "algorithm": {"type": "grpo"}}],
    },
    "bisect": {
        "kind": "bisect",
        "name": "digits-bisection",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train"},
        "validation": {"data": {"builtin": "digits", "split": "test"}},
        "steps": 280,
        "kept": [
            {"from_job": "11111111-2222-3333-4444-555555555555", "checkpoint": 50},
            {"from_job": "11111111-2222-3333-4444-555555555555", "checkpoint": 100},
        ],
        "rule": "reward_not_accuracy",
        "fired_step": 90,
    },
}
