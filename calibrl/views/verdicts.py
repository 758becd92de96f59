"""Output of `calibrl trust` and `calibrl judge`: error rates of verifiers, and completions to judge."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import CompletionToJudge, PersonVerdict, Rate, Trust
from calibrl.views.terminal import plain, table_of


def trust_page(trust: Trust) -> RenderableType:
    """Return the error rates with their intervals, and the verdicts that differ."""
    facts = Table.grid(padding=(0, 2))
    accuracy = "–" if trust.accuracy is None else f"{trust.accuracy:.1%} of {trust.completions} stored completions"
    for name, value in {
        "accuracy by the verifiers": accuracy,
        "passed, but wrong": _rate(trust.false_passes),
        "failed, but right": _rate(trust.false_failures),
        "corrected accuracy": _rate(trust.corrected),
    }.items():
        facts.add_row(Text(name, style="dim"), value)
    if not trust.disagreements:
        return facts
    table = table_of(">STEP", "PROMPT~", ">SAMPLE", ">COMPLETION", "VERIFIERS", "PERSON", "USER")
    for one in trust.disagreements:
        table.add_row(str(one.step), Text(plain(one.prompt_id)), str(one.sample_id), str(one.completion), *_sides(one))
    return Group(facts, Text(), table)


def _sides(one: PersonVerdict) -> tuple[str, str, Text]:
    words = tuple("right" if side else "wrong" for side in (one.passed, one.right))
    return words[0], words[1], Text(plain(one.user))


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "not known: judge random completions with `calibrl judge JOB`"
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}] of {rate.count} verdicts"


def completion_page(one: CompletionToJudge) -> RenderableType:
    """Return a completion to judge, with the prompt and the reference answer."""
    place = f"step {one.step}, {plain(one.prompt_id)}, completion {one.completion} of sample {one.sample_id}"
    parts = {"Prompt": one.prompt, "Reference answer": one.answer, "Completion": one.text}
    texts = [text for title, body in parts.items() for text in (Text(title, style="dim"), Text(plain(body)), Text())]
    return Group(Text(place, style="bold"), Text(), *texts[:-1])
