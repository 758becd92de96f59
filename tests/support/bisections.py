"""The result of a bisection, as the trainer reports it."""

from typing import Any

from calibrl.schemas import BadUpdate, Bisection, GroupGradient, HealthAlert, ProbedPolicy, SpecChange


def probe(step: int, value: float, *, worse: bool = False, replayed: bool = False) -> ProbedPolicy:
    """Return the probe of a policy, compared with a reference of 0.75, with an interval of 0.1 on both sides."""
    difference = value - 0.75
    low, high = (difference - 0.1, difference + 0.1) if difference else (0.0, 0.0)
    return ProbedPolicy(
        step=step, replayed=replayed, value=value, difference=difference, low=low, high=high, worse=worse
    )


def fired(rule: str, step: int) -> HealthAlert:
    """Return the alert that a bisection explains."""
    return HealthAlert(rule=rule, state="fired", step=step, message="means of the last 20 steps", suggestion="Look.")


def group(**changes: Any) -> GroupGradient:
    fields: dict[str, Any] = {
        "prompt_id": "sums/1",
        "prompt": "What is 3 + 4?",
        "gradient_norm": 2.5,
        "rollouts": 4,
        "passed": 1,
        "reward": 0.25,
        "completion": "<answer>9</answer>",
        "advantage": -0.25,
    }
    return GroupGradient(**fields | changes)


def bisection_result(**changes: Any) -> dict[str, Any]:
    """Return a result: step 60 is bad, between the checkpoints of steps 50 and 100."""
    fields: dict[str, Any] = {
        "rule": "reward_not_accuracy",
        "fired_step": 90,
        "measure": "accuracy",
        "prompts": 32,
        "samples": 8,
        "reference_step": 50,
        "probes": [probe(50, 0.75), probe(100, 0.25, worse=True), probe(60, 0.375, worse=True, replayed=True)],
        "last_good": 50,
        "first_bad": 100,
        "update": BadUpdate(step=60, learning_rate=1e-3, gradient_norm=3.0, groups=[group()]),
        "changes": [
            SpecChange(changes={"algorithm": {"kl_coef": 0.01}}, reason="A KL term."),
            SpecChange(changes={"prompts_per_step": 16}, reason="Twice the prompts."),
        ],
    }
    return Bisection(**fields | changes).model_dump(mode="json")
