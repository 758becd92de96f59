"""Chat templates that cannot be compiled are refused at submission, as transformers would refuse them."""

from typing import Any

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from calibrl.schemas import job_spec_adapter
from jobs.specs.chat_templates import template_fault
from jobs.specs.checks import prompt_problems

GOOD = (
    "{% for message in messages %}{% if loop.first %}{% continue %}{% endif %}{% generation %}"
    "{{ message['content'] | trim }}{% endgeneration %}{% endfor %}",
    "{% if tools is defined %}{{ raise_exception('no tools') | no_such_filter }}{% endif %}",
    "{{ messages | tojson(indent=2) }}{{ strftime_now('%d') }}",
)
BAD = (
    "{% for message in messages %}{{ message }}",
    "{{ messages[0 }}",
    "{% generation %}text",
    "{{ messages | no_such_filter }}",
    "{% for message in messages if message is no_such_test %}{% endfor %}",
    "{% no_such_tag %}",
)


@pytest.mark.parametrize("template", [*GOOD, *BAD])
def test_a_fault_is_what_transformers_cannot_compile(template: str) -> None:
    try:
        _compile_jinja_template(template)
        compiles = True
    except TemplateError:
        compiles = False
    assert compiles == (template_fault(template) is None) == (template in GOOD)


@pytest.mark.parametrize("template", ["{{ 9 ** 9 ** 9 }}", "{{ 'x' | center(1000000000000) }}"])
def test_no_constant_is_computed(template: str) -> None:
    assert template_fault(template) is None


@pytest.mark.parametrize("template", ["{{ " + "(" * 20_000, "{{ " + "a + " * 12_000 + "a }}"])
def test_a_deep_template_is_refused(template: str) -> None:
    assert template_fault(template) is not None


def test_a_job_with_a_broken_template_is_refused_by_the_field() -> None:
    settings: dict[str, Any] = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "steps": 1}
    settings |= {"data": {"builtin": "digits"}, "prompts": {"chat_template": "one\n{{ two"}}
    (problem,) = prompt_problems(job_spec_adapter.validate_python(settings))
    assert problem.field == "prompts.chat_template"
    assert problem.message.startswith("line 2 of the template: ") and problem.message.endswith(": correct it")
    settings["prompts"] = {}
    assert prompt_problems(job_spec_adapter.validate_python(settings)) == []
