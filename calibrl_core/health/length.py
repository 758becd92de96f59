"""Rules over the length of completions."""

from collections.abc import Sequence

from calibrl_core.health.rule import BACK, Rule, RuleFinding


class AllTruncated(Rule):
    name = "all_truncated"
    title = "All truncated"
    about = "Nearly all completions are truncated at the token limit, so few give an answer."
    reads = ("length/truncated_share",)
    suggestion = (
        "Raise rollout.max_completion_tokens. If completions never end, warm the model up on expert traces first "
        "({type: sft})."
    )

    def _window(self) -> int:
        return self._settings.truncated_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = self._settings.truncated_share
        message = f"over the last {self._window()} steps {means[0]:.0%} of completions were truncated"
        return RuleFinding(means[0] >= limit, means[0] < limit / BACK, message)


class LengthExplosion(Rule):
    """The reference is the window with the best strict accuracy: growth that makes more answers right is no fault."""

    name = "length_explosion"
    title = "Length explosion"
    about = "Completions become much longer, and no more answers are right: the policy rambles."
    reads = ("length/mean", "reward/strict_accuracy")
    suggestion = (
        "Read some groups. If text repeats, lower optimizer.lr or set algorithm.kl_coef. If a reward term pays for "
        "length, lower its weight. dr_grpo has no length bias."
    )

    def _window(self) -> int:
        return self._settings.length_steps

    def _compare_with(self, before: list[float] | None, means: list[float]) -> list[float]:
        return means if before is None or means[1] > before[1] else before

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = self._settings.length_rise * reference[0]
        message = (
            f"means of the last {self._window()} steps: {means[0]:.3g} tokens, strict accuracy {means[1]:.3g}; when "
            f"strict accuracy was best: {reference[0]:.3g} tokens and {reference[1]:.3g} (limit {limit:.3g} tokens)"
        )
        return RuleFinding(means[0] > limit, means[0] < limit / BACK, message)
