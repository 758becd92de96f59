"""Output of `calibrl prompts`: the visits of prompts."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import PromptPage, PromptVisits
from calibrl.views.terminal import plain, sparkline, table_of

NONE = "–"


def prompts_page(page: PromptPage) -> RenderableType:
    """Return the sizes of the lists, and a row per prompt."""
    counts = page.counts
    head = (
        f"{counts.all} prompts: {counts.only_expert} only the expert solves, {counts.lost} solved, then lost, "
        f"{counts.never_moved} never moved"
    )
    table = table_of("PROMPT", "ID~", ">VISITS", ">SOLVED", ">STEPS", ">FIRST", ">LAST", "SHARE CORRECT")
    for one in page.data:
        cells = (str(one.visits), str(one.solved), f"{one.first_step}-{one.last_step}")
        shares = (f"{one.shares[0]:.0%}", f"{one.shares[-1]:.0%}", sparkline(one.shares))
        table.add_row(one.prompt, Text(plain(one.prompt_id)), *cells, *shares)
    return Group(Text(head, style="bold"), table)


def prompt_page(prompt: PromptVisits) -> RenderableType:
    """Return the visits of a prompt, and the other runs with it."""
    head = f"{plain(prompt.prompt_id)} ({'with' if prompt.expert else 'without'} expert)"
    visits = table_of(">STEP", ">CORRECT", ">ENTROPY", ">GAP", ">|A|")
    for one in prompt.visits:
        numbers = (_number(value) for value in (one.entropy, one.gap, one.rareness))
        visits.add_row(str(one.step), f"{one.passed} of {one.size}", *numbers)
    parts: list[RenderableType] = [Text(head, style="bold"), visits]
    return Group(*parts, Text(), _runs(prompt)) if prompt.runs else Group(*parts)


def _runs(prompt: PromptVisits) -> Table:
    table = table_of("OTHER RUN", "NAME~", ">VISITS", ">SOLVED", ">FIRST", ">LAST")
    for run in prompt.runs:
        shares = (f"{run.first_share:.0%}", f"{run.last_share:.0%}")
        table.add_row(str(run.job_id)[:8], Text(plain(run.name)), str(run.visits), str(run.solved), *shares)
    return table


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"
