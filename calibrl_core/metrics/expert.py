"""Metrics of the distance between policy and expert."""

from typing import Literal

from calibrl_core.metrics.base import Metric, MetricFamily

# Kinds of tokens: by the outcome of the completion, and by the sign of the gap.
Quadrant = Literal["confident_correct", "underconfident_correct", "overconfident_wrong", "humble_wrong"]

_QUADRANT = "share of tokens with a gap"

EXPERT = MetricFamily(
    "expert/",
    (
        Metric(
            "expert/gap_mean",
            "nats/token",
            "Mean gap: log π(token) − log π(expert's token at this position).",
            "Many nats above 0 everywhere: the expert is out of distribution for this policy.",
            label="expert gap",
        ),
        Metric(
            "expert/gap_correct",
            "nats/token",
            "Mean gap over correct rollouts.",
            "It should rise above the gap of wrong rollouts.",
            "up",
        ),
        Metric(
            "expert/gap_wrong",
            "nats/token",
            "Mean gap over wrong rollouts.",
            "It should fall: less confidence in wrong tokens.",
            "down",
        ),
        Metric(
            "expert/quadrant_confident_correct",
            _QUADRANT,
            "Tokens of correct rollouts with a gap of 0 or more.",
            "It grows in a healthy run. Guidance pushes these tokens up at `negative_slope`.",
            "up",
        ),
        Metric(
            "expert/quadrant_underconfident_correct",
            _QUADRANT,
            "Tokens of correct rollouts that are less likely than the expert's token.",
            "Guidance pushes these tokens up at full strength.",
        ),
        Metric(
            "expert/quadrant_overconfident_wrong",
            _QUADRANT,
            "Tokens of wrong rollouts with a gap of 0 or more.",
            "It should shrink. Guidance pushes these tokens down at full strength.",
            "down",
        ),
        Metric(
            "expert/quadrant_humble_wrong",
            _QUADRANT,
            "Tokens of wrong rollouts that are less likely than the expert's token.",
            "Guidance pushes these tokens down at `negative_slope`.",
        ),
        Metric(
            "expert/damped_share",
            _QUADRANT,
            "Damped tokens: the two quadrants that guidance pushes at `negative_slope` only.",
            "Near 1 the slope decides how strong guidance is.",
        ),
        Metric(
            "expert/opposing_share",
            _QUADRANT,
            "Opposed tokens: guidance pushes against the policy gradient. Advantage and outcome differ in sign.",
            "Above 0 only if other terms than correctness matter, such as the format.",
        ),
        Metric(
            "expert/nll",
            "nats/token",
            "Negative log-likelihood (NLL) of the experts of the step's prompts under the policy.",
            "A fall: the policy comes closer to the expert.",
        ),
        Metric(
            "expert/probe_nll",
            "nats/token",
            "Expert NLL on a fixed probe set: up to 64 experts of the validation data.",
            "Comparable from step to step, because the prompts stay the same.",
        ),
        Metric(
            "expert/probe_gap",
            "nats/token",
            "Validation expert gap on the probe set: mean log-probability of the policy's own completions minus that "
            "of the expert, both per token.",
            "At 0 the expert could be one of the policy's own completions. Rising: policy and expert diverge.",
        ),
    ),
    "The gap of a token is its log-probability minus that of the expert's token at the same position, both under the "
    "policy. Positions past the expert's end have no gap.",
)
