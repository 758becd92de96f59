"""What would become of a spec: rows, memory, the queue, and what may not be meant."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import streamlit as st

from calibrl.schemas import DataFacts, JobPlan, MemoryPart, MemoryPlan, QueuePlan
from dashboard.markup import GIB, chip, duration, escape, table
from dashboard.palette import CORRECT, NEUTRAL, POLICY, RARENESS, WRONG

PHASES = {"always": NEUTRAL, "rollout": POLICY, "update": RARENESS}
NOTE = "border-left:3px solid {};padding-left:.6rem;margin:.45rem 0;font-size:.9rem;overflow-wrap:anywhere"


def size(count: int) -> str:
    """Bytes as people say them."""
    for unit, factor in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def notes(said: Sequence[Mapping[str, str]], colour: str) -> str:
    """Sentences about fields, one below the other."""
    style = NOTE.format(colour)
    return "".join(
        f'<div style="{style}"><code>{escape(one["field"])}</code> {escape(one["message"])}</div>' for one in said
    )


def draw(plan: JobPlan) -> None:
    """A plan, from when it starts to what it takes."""
    st.html(_start(plan.queue))
    if plan.warnings:
        st.html(
            f"{chip('! works, but may not be meant', RARENESS)}"
            + notes([warning.model_dump() for warning in plan.warnings], RARENESS)
        )
    st.html(table(("Data", "Rows", "With expert", "With image"), map(_data_row, plan.data)))
    if plan.memory:
        _memory(plan.memory)
    else:
        st.caption("How much memory it takes can't be told: the service does not know the model's size.")


def refused(errors: Sequence[Mapping[str, str]]) -> None:
    """Why a spec would not be taken."""
    st.html(chip("✕ would be refused", WRONG) + notes(errors, WRONG))


def _start(queue: QueuePlan) -> str:
    if queue.reason is None:
        head = chip("✓ starts at once", CORRECT)
    else:
        head = chip(f"◷ waits: position {queue.position}" if queue.position else "◷ waits", NEUTRAL)
    facts = [queue.explanation]
    if queue.reason and queue.estimated_start:
        seconds = (queue.estimated_start - datetime.now(UTC)).total_seconds()
        facts.append(f"may start in about {duration(seconds)}")
    if queue.expected_seconds:
        facts.append(f"such jobs took about {duration(queue.expected_seconds)}")
    text = "; ".join(fact for fact in facts if fact)
    return f'{head}<div style="font-size:.9rem;margin-top:.35rem">{escape(text)}</div>'


def _data_row(facts: DataFacts) -> str:
    counts = []
    for title, count in (("with expert", facts.with_expert), ("with image", facts.with_images)):
        said = "–" if count is None else f"{count:,}" if count == facts.checked else f"{count:,} of {facts.checked:,}"
        counts.append(f'<td data-label="{title}">{said}</td>')
    rows = "only the worker can tell" if facts.rows is None else f"{facts.rows:,}"
    return f'<tr><td>{escape(facts.name)}</td><td data-label="rows">{rows}</td>{"".join(counts)}</tr>'


def _part_row(part: MemoryPart) -> str:
    return (
        f'<tr><td title="{escape(part.formula)}">{escape(part.name)}</td>'
        f"<td>{chip(part.when, PHASES[part.when])}</td><td>{size(part.bytes)}</td></tr>"
    )


def _memory(memory: MemoryPlan) -> None:
    facts = f"{memory.parameters:,} parameters, {memory.trained:,} of them trained"
    if memory.on == "GPU":
        facts += f"; {memory.explanation}"
    where = "GPU" if memory.on == "GPU" else "the machine's memory"
    fits = {True: chip("✓ fits", CORRECT), False: chip("✕ fits nowhere", WRONG), None: ""}[memory.fits]
    st.html(
        f'<div style="display:flex;flex-wrap:wrap;gap:.5rem;align-items:center"><b>{size(memory.bytes)}</b> '
        f"of {where} for each process at its peak {fits}</div>"
        f'<div style="font-size:.85rem;opacity:.8">{escape(facts)}</div>'
    )
    with st.expander("Memory, part by part"):
        st.html(table(("Part", "When", "Bytes"), map(_part_row, memory.parts)))
        st.caption("Rollouts and updates take turns: the peak is what is there always, and the larger of the two.")
