"""Rules over the use of images."""

from collections.abc import Sequence

from calibrl_core.health.rule import BACK, Rule, RuleFinding


class IgnoresImage(Rule):
    name = "ignores_image"
    title = "Ignores the image"
    about = "Completions are as likely with the image of another prompt: the policy does not use its images."
    reads = ("image/gain_swap",)
    suggestion = (
        "Look at some groups: do the questions need their images, and do the images show what they ask? Evaluate with "
        "image_changes. Start from a model that reads such images, or set model.freeze_vision to false."
    )

    def _window(self) -> int:
        return self._settings.image_measurements

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = self._settings.image_gain
        message = (
            f"over the last {self._window()} measurements a completion was {means[0]:.3g} nats more likely with its "
            f"own image than with another one (limit {limit:.3g})"
        )
        return RuleFinding(means[0] < limit, means[0] > BACK * limit, message)
