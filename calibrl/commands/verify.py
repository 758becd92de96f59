"""`calibrl verify`: the verdict on one answer, and how both texts are read."""

from pydantic import TypeAdapter, ValidationError
from rich.console import Group, RenderableType
from rich.text import Text

from calibrl.specfile import SpecError
from calibrl_core.verifiers.base import Deferred
from calibrl_core.verifiers.explain import Reading, read
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput


def verdict(verifier: str, truth: str, answer: str) -> float:
    """Return the verdict on a completion whose answer is `answer`. A hard comparison runs in this process, without a
    limit of time.

    Raises:
        SpecError: there is no such verifier.
    """
    try:
        reward: Reward = TypeAdapter[Reward](Reward).validate_python({"type": verifier})
    except ValidationError as error:
        raise SpecError(f"verifier {verifier!r}: {error.errors()[0]['msg']}") from None
    found = reward.settle(RewardInput(f"<think>-</think><answer>{answer}</answer>", truth))
    if not isinstance(found, Deferred):
        return found
    reward.prepare()
    return reward.judge(found.text, found.truth)


def page(score: float, truth: str, answer: str, *, explain: bool) -> RenderableType:
    """Return the verdict as text, with `explain` below it the steps by which both texts were read."""
    lines = [Text("right" if score >= 0.5 else "wrong", style="bold")]
    if explain:
        for name, text in (("truth", truth), ("answer", answer)):
            lines += [Text(), *_lines(name, text, read(text))]
    return Group(*lines)


def _lines(name: str, text: str, reading: Reading) -> list[Text]:
    steps = [Text(f"  {step}: {changed}   ({step} {meaning})") for step, meaning, changed in reading.steps]
    return [Text(f"{name}: {text}"), *steps, Text(f"  read as {reading.kind}")]
