"""Metrics of validation during training (`validation/`) and of evaluation jobs (`eval/<split>/`)."""

from dataclasses import replace

from calibrl_core.metrics.base import Metric, MetricFamily
from calibrl_core.metrics.image import CHANGES

_COMPLETIONS = (
    Metric("accuracy", "share", "Share of completions with a correct answer.", "", "up", interval=True),
    Metric(
        "strict_accuracy",
        "share",
        "Share of completions with a correct answer in the requested format.",
        "",
        "up",
        interval=True,
    ),
    Metric("format_rate", "share", "Share of completions in the requested format.", "", "up", interval=True),
    Metric("length_mean", "tokens", "Mean length of a completion.", interval=True),
    Metric("truncated_share", "share", "Share of completions truncated at the token limit.", "", "down", interval=True),
)
_GROUPS = tuple(
    Metric(f"{prefix}{name}", "share", f"{meaning}{strict}.", "", "up", interval=True)
    for prefix, strict in (("", ""), ("strict_", ", in the requested format"))
    for name, meaning in (
        ("pass_at_k", "Share of prompts that at least one of the samples solves (pass@k)"),
        ("pass_at_<n>", "Unbiased chance that at least one of n samples is correct (pass@n), for n = 1, 2, 4 ... k"),
        ("majority_at_k", "Share of prompts with a correct most common answer (majority@k)"),
    )
)
_FAILURES = Metric(
    "verifier_failures",
    "completions",
    "Scores that a verifier failed to give. They count as 0.",
    "Any value above 0 needs attention: look for the verifier in the log.",
    "down",
)
_CHANGED = tuple(
    Metric(
        f"accuracy_{change}",
        "share",
        f"Accuracy {changed}, if `image_changes` names `{change}`.",
        "Near the accuracy: the answers do not need the images.",
        interval=True,
    )
    for change, changed in CHANGES.items()
)
_SAMPLED = (*_COMPLETIONS, *_GROUPS, *_CHANGED, _FAILURES)
_GREEDY = tuple(
    replace(
        metric, name=f"greedy_{metric.name}", meaning=f"Greedy decoding, one completion per prompt: {metric.meaning}"
    )
    for metric in _COMPLETIONS
)


def _under(prefix: str, metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    return tuple(replace(metric, name=prefix + metric.name, label=_label(prefix + metric.name)) for metric in metrics)


def _label(name: str) -> str:
    return name.replace("/", " ").replace("_", " ")


VALIDATION = MetricFamily(
    "validation/",
    _under("validation/", _SAMPLED),
    "Validation data, which training never uses, sampled with the settings of training. Each metric except "
    "`verifier_failures` is also reported as `_low` and `_high`: the bounds of its 95 % interval over prompts.",
)
EVALUATION = MetricFamily(
    "eval/<split>/",
    _under("eval/<split>/", (*_SAMPLED, *_GREEDY)),
    "The results of an evaluation job; step i is the i-th model. Each metric except `verifier_failures` is also "
    "reported as `_low` and `_high`: the bounds of its 95 % interval over prompts.",
)
