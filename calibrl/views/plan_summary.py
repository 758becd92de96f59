"""Output of `calibrl plan`: dry run of a job."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import DataFacts, JobPlan, MemoryPlan, ModelFacts, QueuePlan
from calibrl.schemas.byte_counts import file_size, memory_size
from calibrl.views.terminal import duration, plain, until

UNCHECKED = "at load"


def plan_page(plan: JobPlan) -> RenderableType:
    """Return the parts of a dry run one below the other, warnings last."""
    parts: list[RenderableType] = [_models(plan.models), _data(plan.data)]
    parts += [
        Text(plain(f"{facts.field}: {facts.row_format}; unused columns: {', '.join(facts.unused_columns) or 'none'}"))
        for facts in plan.data
        if facts.row_format
    ]
    if plan.steps is not None:
        parts.append(Text(f"{plan.steps:,} steps"))
    if plan.memory:
        parts += [_title("Memory of each process"), _memory(plan.memory), Text(plan.memory.explanation)]
    parts += [_title("Queue"), _queue(plan.queue)]
    if plan.warnings:
        parts.append(_title("Warnings"))
        parts += [Text(plain(f"{one.field}: {one.message}"), style="yellow") for one in plan.warnings]
    return Group(*parts)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _models(models: list[ModelFacts]) -> Table:
    table = Table("MODEL", "NAME", "COMMIT", "DOWNLOAD", "CHECK", box=None, pad_edge=False)
    for facts in models:
        download = "none" if facts.download_bytes is None else f"{file_size(facts.download_bytes)}, once per machine"
        check = Text(plain(facts.check or UNCHECKED))
        table.add_row(facts.field, Text(plain(facts.name)), (facts.commit or "")[:12], download, check)
    return table


def _data(data: list[DataFacts]) -> Table:
    table = Table("DATA", "NAME", "ROWS", "LOOKED AT", "WITH EXPERT", "WITH IMAGES", box=None, pad_edge=False)
    for facts in data:
        numbers = (facts.rows, facts.checked, facts.with_expert, facts.with_images)
        cells = ("?" if number is None else f"{number:,}" for number in numbers)
        table.add_row(facts.field, Text(plain(facts.name)), *cells)
    return table


def _memory(memory: MemoryPlan) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right", no_wrap=True)
    for part in memory.parts:
        when = "always" if len(part.phases) == len(memory.phases) else ", ".join(part.phases)
        table.add_row(part.name, memory_size(part.bytes), when, Text(plain(part.formula), style="dim"))
    for phase, size in memory.phases.items():
        table.add_row(Text(phase, style="dim"), memory_size(size), "", Text("all parts of this phase", style="dim"))
    table.add_row(Text("at its peak", style="bold"), memory_size(memory.bytes), "", "the largest phase")
    if memory.on == "GPU":
        table.add_row("host memory", memory_size(memory.host_bytes), "", "of each process")
    return table


def _queue(queue: QueuePlan) -> Table:
    hours = None if queue.expected_seconds is None else queue.slots * queue.expected_seconds / 3600
    facts = {
        "position": str(queue.position or "none"),
        "starts": until(queue.estimated_start),
        "why": queue.explanation,
        "runs for": _expected(queue),
        "costs": "not known" if hours is None else f"about {hours:.2f} slot-hours",
    }
    table = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        table.add_row(Text(name, style="dim"), Text(plain(fact)))
    return table


def _expected(queue: QueuePlan) -> str:
    if queue.expected_seconds is None:
        return "not known"
    source = "by its steps" if queue.by_steps else "as recent jobs of this kind, of any length"
    return f"about {duration(queue.expected_seconds)}, {source}"
