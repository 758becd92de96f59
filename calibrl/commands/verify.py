"""`calibrl verify`: the verdict on one answer, the rule that decided, and how both texts are read."""

import json
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from rich.console import Group, RenderableType
from rich.text import Text

from calibrl.schemas.fault_texts import fault_text
from calibrl.specfile import SpecError
from calibrl_core.verifiers.base import AnswerVerifier, Deferred, answer_form
from calibrl_core.verifiers.explain import READING, Reading, changes, read, truth_kind
from calibrl_core.verifiers.math import MathReward, with_itself
from calibrl_core.verifiers.refusals import truth_as_completion
from calibrl_core.verifiers.registry import Reward


class Judged(NamedTuple):
    """The verdict of a verifier, by its type, on an answer."""

    verifier: str
    score: float
    rule: str


def judged(verifier: str, truth: str, answer: str) -> Judged:
    """Return the verdict on a completion whose answer is `answer`. A hard comparison runs in this process, without a
    limit of time. `verifier`: a type, or settings as JSON.

    Raises:
        SpecError: there is no such verifier, or it compares no answer with a truth.
    """
    reward = _reward(verifier)
    if not isinstance(reward, AnswerVerifier):
        raise SpecError(f"verifier {reward.type!r}: it compares no answer with a truth; try a job, or graders/run")
    found, rule = reward.decide(truth_as_completion(answer, answer_form([reward])), truth)
    if isinstance(found, Deferred):
        reward.prepare()
        found = reward.judge(found.text, found.truth)
    return Judged(reward.type, found, rule)


def _reward(verifier: str) -> Reward:
    try:
        settings = json.loads(verifier) if verifier.lstrip().startswith("{") else {"type": verifier}
        return TypeAdapter[Reward](Reward).validate_python(settings)
    except ValidationError as error:
        raise SpecError(f"verifier {verifier!r}: {fault_text(error.errors()[0])}") from None
    except ValueError as error:
        raise SpecError(f"verifier {verifier!r}: it is neither a type nor JSON ({error})") from None


def page(found: Judged, truth: str, answer: str, *, explain: bool) -> RenderableType:
    """Return the verdict as text, with `explain` below it the rule and the steps by which both texts were read."""
    lines = [Text("right" if found.score >= 0.5 else "wrong", style="bold")]
    if explain:
        lines.append(Text(f"because {found.rule}"))
    if explain and found.verifier in READING:
        readings = {"truth": (truth, read(truth)), "answer": (answer, read(answer))}
        contents = [reading.text for _, reading in readings.values()]
        for (name, (text, reading)), other in zip(readings.items(), reversed(contents), strict=True):
            later = changes(reading.text, other, found.verifier, found.rule)
            lines += [Text(), *_lines(name, text, reading), *map(_line, later)]
    return Group(*lines)


def _lines(name: str, text: str, reading: Reading) -> list[Text]:
    parsed = truth_kind(text) != "expression" or _is_parsed(text)
    kind = reading.kind if parsed else "text that cannot be parsed: only the same characters pass"
    return [Text(f"{name}: {text}"), *map(_line, reading.steps), Text(f"  read as {kind}")]


def _is_parsed(expression: str) -> bool:
    asked, verifier = with_itself(expression), MathReward()
    verifier.prepare()
    return verifier.judge(asked.text, asked.truth) >= 0.5


def _line(step: tuple[str, str, str]) -> Text:
    name, meaning, changed = step
    return Text(f"  {name}: {changed}   ({name} {meaning})")
