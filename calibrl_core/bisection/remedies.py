"""Changes of the spec for a fork before a bad update, by the rule that fired."""

from collections.abc import Callable

from calibrl_core.bisection.facts import SpecChange
from calibrl_core.config import TrainConfig
from calibrl_core.health.settings import RuleName

MOST = 3
Remedy = Callable[[TrainConfig], SpecChange | None]  # None: the change does not fit the config


def spec_changes(config: TrainConfig, rule: RuleName) -> list[SpecChange]:
    """Return two or three changes for a rule that fired, the first choice first. Each changes one setting."""
    found = (remedy(config) for remedy in (*REMEDIES[rule], *OTHERS))
    changes: list[SpecChange] = []
    for change in found:
        if change is not None and change not in changes:
            changes.append(change)
    return changes[:MOST]


def _lower_rate(config: TrainConfig) -> SpecChange:
    rate = _rounded(config.optimizer.lr / 3)
    return SpecChange(changes={"optimizer": {"lr": rate}}, reason="A third of the learning rate: smaller updates.")


def _lower_clip(config: TrainConfig) -> SpecChange:
    norm = _rounded(config.optimizer.max_grad_norm / 3)
    reason = "A third of the limit of the gradient norm: one group with a large gradient moves the policy less."
    return SpecChange(changes={"optimizer": {"max_grad_norm": norm}}, reason=reason)


def _more_prompts(config: TrainConfig) -> SpecChange | None:
    prompts = 2 * config.prompts_per_step
    reason = "Twice the prompts per step: each group has half the weight in an update."
    return SpecChange(changes={"prompts_per_step": prompts}, reason=reason) if prompts <= 65536 else None


def _stronger_kl(config: TrainConfig) -> SpecChange | None:
    reason = "A KL term: it holds the policy near the checkpoint that the fork starts from."
    return _algorithm(config, "kl_coef", lambda value: _rounded(3 * value) or 0.01, reason)


def _more_entropy(config: TrainConfig) -> SpecChange | None:
    reason = "An entropy bonus: the policy keeps exploring."
    return _algorithm(config, "entropy_coef", lambda value: _rounded(3 * value) or 0.003, reason)


def _less_entropy(config: TrainConfig) -> SpecChange | None:
    if not getattr(config.algorithm, "entropy_coef", 0.0):
        return None
    return _algorithm(config, "entropy_coef", lambda value: 0.0, "No entropy bonus: it pays for noise.")


def _more_guidance(config: TrainConfig) -> SpecChange | None:
    reason = "Twice the guidance: the experts hold the policy more strongly."
    return _algorithm(config, "guidance_coef", lambda value: _rounded(2 * value) or 0.1, reason)


def _longer_completions(config: TrainConfig) -> SpecChange | None:
    tokens = 2 * config.rollout.max_completion_tokens
    reason = "Twice the limit of tokens: completions can reach their answer."
    if tokens > 131072:
        return None
    return SpecChange(changes={"rollout": {"max_completion_tokens": tokens}}, reason=reason)


def _no_staleness(config: TrainConfig) -> SpecChange | None:
    if not config.rollout.max_staleness:
        return None
    reason = "No stale rollouts: sampler and trainer have the same weights."
    return SpecChange(changes={"rollout": {"max_staleness": 0}}, reason=reason)


def _train_vision(config: TrainConfig) -> SpecChange | None:
    if not config.model.freeze_vision:
        return None
    reason = "The vision encoder is trained too: it can learn to read these images."
    return SpecChange(changes={"model": {"freeze_vision": False}}, reason=reason)


def _algorithm(config: TrainConfig, name: str, value: Callable[[float], float], reason: str) -> SpecChange | None:
    """Return a change of a setting of the algorithm; None if this algorithm does not have it."""
    algorithm = config.algorithm
    if name not in type(algorithm).model_fields:
        return None
    return SpecChange(changes={"algorithm": {name: value(getattr(algorithm, name))}}, reason=reason)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


OTHERS: tuple[Remedy, ...] = (_lower_rate, _lower_clip)  # fit every run
REMEDIES: dict[RuleName, tuple[Remedy, ...]] = {
    "entropy_collapse": (_lower_rate, _more_entropy, _stronger_kl),
    "entropy_explosion": (_less_entropy, _lower_rate, _stronger_kl),
    "all_truncated": (_longer_completions, _lower_rate, _stronger_kl),
    "no_advantage": (_lower_rate, _more_entropy, _more_prompts),
    "reward_not_accuracy": (_stronger_kl, _lower_rate),
    "verifier_failures": (),
    "no_verdicts": (),
    "length_explosion": (_lower_rate, _stronger_kl),
    "gradient_spikes": (_lower_rate, _lower_clip, _more_prompts),
    "sampler_mismatch": (_no_staleness, _lower_rate),
    "expert_drift": (_lower_rate, _more_guidance, _stronger_kl),
    "overfitting": (_lower_rate, _stronger_kl, _more_prompts),
    "ignores_image": (_train_vision, _lower_rate),
}
