"""Templates of texts, such as `Is {{ sample.output_text }} the same as {{ item.reference }}?`.

A placeholder is a path of names. It begins with `item` (the row's columns), `sample` (the completion), `question` (the
last message of the user), `truth` or `group` (all completions of the prompt). Parts of a column follow behind dots or
in brackets: `item.answers.0.text`, `item.answers[0].text`. Values that are no text are written as JSON.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from calibrl_core.verifiers.base import extract_answer
from calibrl_core.verifiers.reward_input import RewardInput

PLACEHOLDER = re.compile(r"\{\{\s*([^{}]{1,300}?)\s*\}\}")
LONGEST = 100_000  # characters of a template
OF_SAMPLE = ("output_text", "output_json", "choices", "completion")
_PLACE = re.compile(r"\[(\d{1,9})\]")
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


def check_template(text: str) -> str:
    """Return a template if all its placeholders are known.

    Raises:
        ValueError: one is not; the message lists the known ones.
    """
    for path in paths(text):
        root, *rest = path
        if path[:2] == ["sample", "output_tools"]:
            raise ValueError("{{ sample.output_tools }}: models call no tools here; use sample.output_text")
        known = {"item": len(rest) > 0, "sample": rest[:1] != [] and rest[0] in OF_SAMPLE, "question": not rest}
        if not ({"truth": not rest, "group": True} | known).get(root, False):
            raise ValueError(
                f"{{{{ {'.'.join(path)} }}}} is unknown; use item.COLUMN, question, truth, "
                f"{', '.join(f'sample.{name}' for name in OF_SAMPLE)}, group"
            )
    return text


def paths(text: str) -> list[list[str]]:
    """Return the paths of a template's placeholders."""
    return [parts_of(match[1]) for match in PLACEHOLDER.finditer(text)]


def parts_of(path: str) -> list[str]:
    """Return the names of a path: `item.answers[0]` has item, answers and 0."""
    return _PLACE.sub(r".\1", path).split(".")


def names_truth(*texts: str) -> bool:
    """Return if one of these templates has the placeholder `truth`."""
    return any(path == ["truth"] for text in texts for path in paths(text))


def fill(text: str, seen: RewardInput) -> str:
    """Return a checked template with the values of an input.

    Raises:
        ValueError: the row or the completion lacks a value.
    """
    return PLACEHOLDER.sub(lambda match: _text(_value(parts_of(match[1]), seen)), text)


def output_text(completion: str) -> str:
    """Return what a completion answers: its last `<answer>`, or all of it behind its `<think>`."""
    answer = extract_answer(completion)
    return _THOUGHT.sub("", completion, count=1).strip() if answer is None else answer


def choices(completion: str) -> list[dict[str, Any]]:
    """Return a whole completion as OpenAI's graders see it: the only choice of the model."""
    return [{"message": {"role": "assistant", "content": completion}}]


def _value(path: Sequence[str], seen: RewardInput) -> Any:
    root, *rest = path
    if root == "question":
        return seen.question
    if root == "truth":
        return seen.truth
    if root == "group":
        return _inner(list(seen.group), rest, path)
    if root == "item":
        return _inner(seen.item, rest, path)
    if rest[0] == "completion":
        return seen.completion
    if rest[0] == "choices":
        return _inner(choices(seen.completion), rest[1:], path)
    text = output_text(seen.completion)
    if rest[0] == "output_text":
        return text
    try:
        return _inner(json.loads(text), rest[1:], path)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("sample.output_json: the output is not JSON") from None


def _inner(value: Any, rest: Sequence[str], path: Sequence[str]) -> Any:
    for name in rest:
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise ValueError(f"{'.'.join(path)}: there is no {name!r}")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
