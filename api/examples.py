"""Example requests for the OpenAPI document. The specs use generated digits and the tiny model, both in the package."""

from typing import Any

TRAIN: dict[str, Any] = {
    "kind": "train",
    "name": "digits-calibrl",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train"},
    "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 50}, "every_steps": 20},
    "algorithm": {"type": "calibrl", "negative_slope": 0.5, "guidance_coef": 0.1},
    "rewards": [{"type": "math", "weight": 1.0}, {"type": "format", "weight": 0.1}],
    "rollout": {"group_size": 8, "max_completion_tokens": 64},
    "optimizer": {"lr": 1e-4},
    "prompts_per_step": 8,
    "steps": 280,
}

EVALUATE: dict[str, Any] = {
    "kind": "evaluate",
    "name": "digits-test",
    "models": [{"builtin": "tiny-vlm"}],
    "data": [{"builtin": "digits", "split": "test"}],
    "rollout": {"samples": 8, "greedy": True, "max_completion_tokens": 64},
}

AUDIT: dict[str, Any] = {
    "kind": "audit",
    "name": "digits-audit",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 256},
    "rollout": {"group_size": 8, "max_completion_tokens": 64},
}

JOB_SPECS: Any = {
    "train": {"summary": "Train with CalibRL", "value": TRAIN},
    "evaluate": {"summary": "Evaluate a model", "value": EVALUATE},
    "audit": {"summary": "Audit the experts of a dataset", "value": AUDIT},
}

PIPELINES: Any = {
    "chain": {
        "summary": "Train, then evaluate the trained model",
        "value": {"jobs": [TRAIN, EVALUATE | {"models": [{"from_job": f"@{TRAIN['name']}"}]}]},
    },
}

DATASET_CHANGES: Any = {"name": {"summary": "Another name", "value": {"name": "geometry-train"}}}

HUB_DATASETS: Any = {
    "hub": {"summary": "Geometry3K", "value": {"name": "geometry3k", "hub": "hiyouga/geometry3k", "split": "train"}},
}

PRIORITIES: Any = {"high": {"summary": "High priority", "value": {"priority": "high"}}}
CHANGES: Any = {
    "priority": {"summary": "High priority", "value": {"priority": "high"}},
    "labels": {"summary": "Set a label; keep the others", "value": {"labels": {"team": "vision"}}},
    "notes": {"summary": "Set name and notes", "value": {"name": "baseline", "notes": "the run of the paper"}},
}

WHAT_IFS: Any = {
    "default": {"summary": "The variants that the algorithm names", "value": {"checkpoint": "last"}},
    "own": {
        "summary": "Own variants, from a given step",
        "value": {"checkpoint": 100, "variants": {"slope 0": {"negative_slope": 0}, "grpo": {"type": "grpo"}}},
    },
}

FORKS: Any = {
    "best": {
        "summary": "From the best checkpoint, with a lower learning rate",
        "value": {"changes": {"optimizer": {"lr": 1e-5}}},
    },
    "step": {
        "summary": "From a given step, with another algorithm",
        "value": {"checkpoint": 100, "changes": {"algorithm": {"type": "grpo"}}},
    },
}

DRAINS: Any = {
    "drain": {"summary": "Finish the running jobs, take no new ones", "value": {}},
    "now": {"summary": "Return the running jobs to the queue, from a checkpoint", "value": {"now": True}},
}

PROJECTS: Any = {
    "limits": {
        "summary": "Double share, at most 4 GPUs at once and 500 slot-hours per month",
        "value": {"weight": 2, "max_gpus": 4, "budget_slot_hours": 500},
    },
    "none": {"summary": "No limits", "value": {}},
}

WEBHOOKS: Any = {
    "end": {"summary": "When a job ends or a health rule fires", "value": {"url": "https://example.com/hooks"}}
}

_LOW_ENTROPY = {"type": "below", "metric": "exploration/entropy", "limit": 0.05, "steps": 20}
ALERT_RULES: Any = {
    "entropy": {
        "summary": "Entropy below 0.05 for 20 steps",
        "value": {"name": "low-entropy", "condition": _LOW_ENTROPY},
    },
    "progress": {
        "summary": "No step for half an hour, in jobs of one team",
        "value": {
            "name": "stuck",
            "condition": {"type": "no_progress", "minutes": 30},
            "labels": {"team": "vision"},
        },
    },
}
CHANGED_ALERT_RULES: Any = {
    "sweep": {
        "summary": "Validation 5 points below its best value, in jobs of a sweep",
        "value": {"condition": {"type": "worse_than_best", "by": 0.05}, "job_names": "sweep-*"},
    }
}
WEBHOOK_CHANGES: Any = {
    "events": {"summary": "Send other events", "value": {"events": ["job.failed", "job.health"]}},
}

USERS: Any = {"user": {"summary": "New user", "value": {"name": "ada"}}}

KEYS: Any = {
    "write": {"summary": "Read and write, for 90 days", "value": {"name": "laptop", "expires_days": 90}},
    "read": {"summary": "Read only", "value": {"name": "a screen in the corridor", "scope": "read"}},
}

MEMBERS: Any = {"member": {"summary": "Can submit and change jobs", "value": {"role": "member"}}}

FINE_TUNING_JOBS: Any = {
    "reinforcement": {
        "summary": "Reinforcement learning: an answer that equals the row's answer is correct",
        "value": {
            "model": "tiny-vlm",
            "training_file": "file-0c4f2b1e00000000000000000000000a",
            "suffix": "digits",
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": {
                        "type": "string_check",
                        "name": "equal",
                        "input": "{{ sample.output_text }}",
                        "reference": "{{ item.reference_answer }}",
                        "operation": "eq",
                    }
                },
            },
        },
    },
    "supervised": {
        "summary": "Learn from the assistant's messages",
        "value": {"model": "tiny-vlm", "training_file": "file-0c4f2b1e00000000000000000000000a"},
    },
}

VERDICTS: Any = {
    "right": {"summary": "The answer is right", "value": {"right": True}},
    "random": {"summary": "Of a completion that the service picked", "value": {"right": False, "picked": "random"}},
}

VIEWS: Any = {
    "table": {"summary": "Runs of a team as a table", "value": {"address": "?list-view=Table&label=team:vision"}},
}

REPLAYS: Any = {
    "numeric": {"summary": "By another verifier", "value": {"rewards": [{"type": "numeric"}]}},
    "steps": {
        "summary": "Only some steps",
        "value": {"rewards": [{"type": "exact", "ignore_case": True}], "first_step": 50, "last_step": 100},
    },
}

STUDIES: Any = {
    "slopes": {
        "summary": "CalibRL and GRPO with two seeds",
        "value": {
            "name": "slopes",
            "base": {name: value for name, value in TRAIN.items() if name not in ("kind", "name")},
            "arms": {"grpo": {"algorithm": {"type": "grpo"}}, "calibrl": {}},
            "baseline": "grpo",
            "seeds": [0, 1],
            "evaluation": {"data": [{"builtin": "digits", "split": "test"}], "rollout": {"samples": 8}},
        },
    },
}
