"""Rules over the update: gradients, and the log-probabilities that it learns from."""

from collections.abc import Mapping, Sequence
from statistics import median

from calibrl_core.health.rule import BACK, Rule, RuleFinding

FEWEST = 5  # steps with a gradient before a norm is compared with their median


class GradientSpikes(Rule):
    """It remembers per step the norm, and 1.0 for a spike. Steps with a norm of 0 (no advantage) have no part in the
    median.
    """

    name = "gradient_spikes"
    title = "Gradient spikes"
    about = "The gradient norm often jumps to a multiple of its usual value: single updates move the policy too far."
    reads = ("loss/grad_norm",)
    suggestion = (
        "Lower optimizer.lr or optimizer.max_grad_norm, or raise prompts_per_step. Read the groups of these steps: "
        "very long or very unlikely completions are common causes."
    )

    def _window(self) -> int:
        return self._settings.spike_steps

    def _values(self, metrics: Mapping[str, float]) -> list[float]:
        (norm,) = super()._values(metrics)
        before = [earlier for earlier, _ in self._recent if earlier > 0]
        spike = len(before) >= FEWEST and norm > self._settings.spike_rise * median(before)
        return [norm, float(spike)]

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        norms = [norm for norm, _ in self._recent if norm > 0] or [0.0]
        spikes, limit = sum(spike > 0 for _, spike in self._recent), self._settings.spike_count
        message = (
            f"in {spikes} of the last {self._window()} steps the gradient norm was above "
            f"{self._settings.spike_rise:g} times the median of the steps before (median now "
            f"{median(norms):.3g}, highest {max(norms):.3g})"
        )
        return RuleFinding(spikes >= limit, spikes < limit / BACK, message)


class SamplerMismatch(Rule):
    name = "sampler_mismatch"
    title = "Sampler mismatch"
    about = "Sampler and trainer give the same tokens different probabilities: the update learns from another policy."
    reads = ("kl/sampler",)
    suggestion = (
        "Set rollout.importance_correction, and rollout.max_staleness to 0. Compare with the engine shared_prefill. If "
        "rollout.top_k, min_p or repetition_penalty cause the difference, weaken them or raise health.mismatch_kl."
    )

    def _window(self) -> int:
        return self._settings.mismatch_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = self._settings.mismatch_kl
        message = (
            f"mean divergence of sampler and trainer over the last {self._window()} steps: {means[0]:.3g} nats per "
            f"token (limit {limit:.3g})"
        )
        return RuleFinding(means[0] > limit, means[0] < limit / BACK, message)
