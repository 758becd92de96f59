"""Plan of a spec: queue, warnings, data and memory."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import streamlit as st

from calibrl.schemas import DataFacts, JobPlan, MemoryPart, MemoryPlan, ModelFacts, QueuePlan
from calibrl.schemas.byte_counts import file_size, memory_size
from dashboard.markup import chip, duration, escape, table
from dashboard.palette import CORRECT, NEUTRAL, POLICY, RARENESS, WRONG

PHASES = {"load": NEUTRAL, "rollout": POLICY, "reference": NEUTRAL, "update": RARENESS, "save": NEUTRAL}
NOTE = "border-left:3px solid {};padding-left:.6rem;margin:.45rem 0;font-size:.9rem;overflow-wrap:anywhere"


def notes(messages: Sequence[Mapping[str, str]], colour: str) -> str:
    """Return messages ({field, message}), one below the other."""
    style = NOTE.format(colour)
    return "".join(
        f'<div style="{style}"><code>{escape(note["field"])}</code> {escape(note["message"])}</div>'
        for note in messages
    )


def draw(plan: JobPlan) -> None:
    """Draw a plan: start, warnings, models, data, memory."""
    st.html(_start(plan.queue))
    if plan.warnings:
        st.html(chip("! Warnings", RARENESS) + notes([warning.model_dump() for warning in plan.warnings], RARENESS))
    st.html(table(("Model", "Download", "Check"), map(_model_row, plan.models)))
    st.html(table(("Data", "Rows", "With expert", "With image"), map(_data_row, plan.data)))
    for facts in plan.data:
        if facts.row_format:
            unused = f"unused columns: {', '.join(facts.unused_columns) or 'none'}"
            text = escape(f"{facts.field}: {facts.row_format}; {unused}")
            st.html(f'<div style="font-size:.9rem">{text}</div>')
    if plan.steps is not None:
        st.caption(f"{plan.steps:,} steps")
    if plan.memory:
        _memory(plan.memory)
    else:
        st.caption("Memory unknown: the service does not know the size of the model.")


def draw_errors(errors: Sequence[Mapping[str, str]]) -> None:
    """Draw the errors of an invalid spec."""
    st.html(chip("✕ Invalid config", WRONG) + notes(errors, WRONG))


def _start(queue: QueuePlan) -> str:
    if queue.reason is None:
        head = chip("✓ Starts now", CORRECT)
    else:
        head = chip(f"◷ Queued, position {queue.position}" if queue.position else "◷ Queued", NEUTRAL)
    facts = [queue.explanation]
    if queue.reason and queue.estimated_start:
        seconds = (queue.estimated_start - datetime.now(UTC)).total_seconds()
        facts.append(f"estimated start in {duration(seconds)}")
    if queue.expected_seconds:
        if queue.by_steps:
            facts.append(f"estimated duration {duration(queue.expected_seconds)}, from its steps")
        else:
            facts.append(f"mean duration of recent jobs of this kind {duration(queue.expected_seconds)}")
    text = " · ".join(fact for fact in facts if fact)
    return f'{head}<div style="font-size:.9rem;margin-top:.35rem">{escape(text)}</div>'


def _model_row(facts: ModelFacts) -> str:
    commit = f" @ {facts.commit[:12]}" if facts.commit else ""
    download = "none" if facts.download_bytes is None else f"{file_size(facts.download_bytes)}, once per machine"
    cells = f'<td data-label="download">{download}</td><td data-label="check">{escape(facts.check or "at load")}</td>'
    return f"<tr><td>{escape(facts.name + commit)}</td>{cells}</tr>"


def _data_row(facts: DataFacts) -> str:
    counts = []
    for title, count in (("with expert", facts.with_expert), ("with image", facts.with_images)):
        text = "–" if count is None else f"{count:,}" if count == facts.checked else f"{count:,} of {facts.checked:,}"
        counts.append(f'<td data-label="{title}">{text}</td>')
    rows = "unknown until the worker reads it" if facts.rows is None else f"{facts.rows:,}"
    return f'<tr><td>{escape(facts.name)}</td><td data-label="rows">{rows}</td>{"".join(counts)}</tr>'


def _part_row(part: MemoryPart) -> str:
    always = len(part.phases) == len(PHASES)
    chips = chip("always", NEUTRAL) if always else " ".join(chip(phase, PHASES[phase]) for phase in part.phases)
    return (
        f'<tr><td title="{escape(part.formula)}">{escape(part.name)}</td>'
        f"<td>{chips}</td><td>{memory_size(part.bytes)}</td></tr>"
    )


def _phase_row(phase: str, count: int) -> str:
    return f"<tr><td>{chip(phase, PHASES[phase])}</td><td>{memory_size(count)}</td></tr>"


def _memory(memory: MemoryPlan) -> None:
    facts = f"{memory.parameters:,} parameters, {memory.trained:,} trainable"
    if memory.on == "GPU":
        facts += f"; {memory.explanation}"
    kind = "GPU memory" if memory.on == "GPU" else "memory"
    fits = {True: chip("✓ Fits", CORRECT), False: chip("✕ Does not fit on any machine", WRONG), None: ""}[memory.fits]
    st.html(
        '<div style="display:flex;flex-wrap:wrap;gap:.5rem;align-items:center">'
        f"Peak {kind} per process: <b>{memory_size(memory.bytes)}</b> {fits}</div>"
        f'<div style="font-size:.85rem;opacity:.8">{escape(facts)}</div>'
    )
    with st.expander("Memory breakdown"):
        st.html(table(("Part", "Phase", "Size"), map(_part_row, memory.parts)))
        st.html(table(("Phase", "Size"), (_phase_row(*one) for one in memory.phases.items())))
        host = f" Host memory per process: {memory_size(memory.host_bytes)}." if memory.on == "GPU" else ""
        st.caption(f"A process is in one phase at a time. Peak: the largest phase.{host}")
