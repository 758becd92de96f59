"""Rows that the model cannot take: found before any work, with file, row and remedy."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import EvaluateConfig, TrainConfig
from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import DataError, Example, FileData, Turn
from calibrl_core.evaluate import evaluate
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.run.row_check import check_rows
from calibrl_core.train import train

# The rules of Gemma (no system message) and of Mistral (user and assistant take turns).
TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role\n not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m['content'][0]['text'] }}{% endfor %}"
)
RULES = {"chat_template": TEMPLATE}
REMEDY = ": change the messages of these rows (or prompts.system), or set prompts.chat_template"


def example(*roles: Any) -> Example:
    return Example(id="x", question="1+1?", answer="2", earlier=tuple(Turn(role, "Hm.") for role in roles))


def encoder(policy: Policy, **form: Any) -> PromptEncoder:
    return PromptEncoder(copy.deepcopy(policy.processor), None, PromptFormat(**form))


def chats(path: Path, *earlier: list[str]) -> str:
    rows = [
        {"messages": [{"role": role, "content": "1+1?"} for role in [*roles, "user"]], "answer": "2"}
        for roles in earlier
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_reason_is_named_once_with_its_first_row(policy: Policy) -> None:
    found = encoder(policy, **RULES)
    rows = [example(), example("user", "assistant"), example("user"), example("system"), example("user")]
    with pytest.raises(DataError) as caught:
        check_rows("data", FileData(path="/d/own.jsonl"), rows, found.fault)
    assert str(caught.value) == (
        f"data: /d/own.jsonl, row 3: the chat template refuses the roles user, user (Roles must alternate){REMEDY}, as "
        "in 1 more rows (5); /d/own.jsonl, row 4: the chat template refuses the roles system, user (System role not "
        f"supported){REMEDY}"
    )
    check_rows("data", FileData(path="/d/own.jsonl"), rows[:2], found.fault)


def test_one_prompt_per_order_of_roles_is_rendered(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    found, rendered = encoder(policy, **RULES), []
    monkeypatch.setattr(found.processor, "apply_chat_template", lambda turns, **_: rendered.append(turns))
    for one in [example(), example(), example("user", "assistant"), example()]:
        assert found.fault(one) is None
    assert [len(turns) for turns in rendered] == [1, 3]


def test_a_template_that_expects_other_contents_is_a_refusal(policy: Policy) -> None:
    joins = "{{ messages[0]['content'] + '!' }}"  # of a text model: contents are texts there, here lists of parts
    refused = encoder(policy, chat_template=joins).fault(example())
    assert refused and refused.startswith("the chat template refuses the roles user (can only concatenate")
    broken = encoder(policy, chat_template="{{ messages").fault(example())
    assert broken and broken.startswith("the chat template refuses the roles user (unexpected end of template")


@pytest.mark.parametrize("field", ["data", "validation.data"])
def test_training_names_the_row_before_its_first_step(tmp_path: Path, field: str) -> None:
    good, bad = chats(tmp_path / "good.jsonl", [], []), chats(tmp_path / "bad.jsonl", [], ["system"])
    report = EventFile(tmp_path / "run")
    settings = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"path": bad if field == "data" else good},
        "validation": {"data": {"path": bad}},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "prompts": RULES,
        "steps": 1,
        "prompts_per_step": 1,
    }
    with pytest.raises(DataError) as caught:
        train(TrainConfig.model_validate(settings), report, lambda: False)
    reason = "the chat template refuses the roles system, user (System role not supported)"
    fields = dict.fromkeys((field, "validation.data"))  # the faults of both sources together
    assert str(caught.value) == "\n".join(f"{name}: {bad}, row 2: {reason}{REMEDY}" for name in fields)


def test_an_evaluation_names_the_row_and_the_model(tmp_path: Path) -> None:
    bad = chats(tmp_path / "bad.jsonl", [], ["system"])
    settings = {"models": [{"builtin": "tiny-vlm"}], "data": [{"path": bad}], "prompts": RULES}
    with pytest.raises(DataError, match=rf"^models\.0, data\.0: {bad}, row 2: the chat template refuses"):
        evaluate(EvaluateConfig.model_validate(settings), EventFile(tmp_path / "run"))
