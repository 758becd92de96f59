"""Time per step phase, throughput, memory, the GPUs that the job holds, and what its hours bought."""

import streamlit as st

from calibrl.schemas import GIB, Job
from dashboard import states
from dashboard.charts.cards import Card, Line, StackCard, metrics_of
from dashboard.markup import gpu_table, heading
from dashboard.palette import EXPERT, NEUTRAL, POLICY, RARENESS, faded
from dashboard.panels.common import draw_cards, live_panel, read, show_if_empty
from dashboard.reads import service
from dashboard.views import hours

CARDS = (
    StackCard(
        "phases",
        "Time by phase",
        (
            Line("images", "perf/image_seconds", faded(NEUTRAL, 0.5)),
            Line("rollouts", "perf/rollout_seconds", POLICY),
            Line("log-prob recompute", "perf/rescore_seconds", faded(POLICY, 0.5)),
            Line("rewards", "perf/reward_seconds", RARENESS),
            Line("experts", "perf/expert_seconds", EXPERT),
            Line("update", "perf/update_seconds", NEUTRAL),
        ),
        hint="Time of a step by phase. Rewards should be small beside the rest. Look into a phase that grows.",
        unit="s/step",
        shares=False,
    ),
    Card(
        "speed",
        "Throughput",
        (Line("completion tokens", "perf/tokens_per_second", POLICY),),
        value_format=",.0f",
    ),
    Card(
        "memory",
        "Memory",
        (Line("peak", "perf/memory_bytes", exact=True),),
        unit="GiB",
        value_format=".2f",
        scale=1 / GIB,
    ),
    Card("step-seconds", "Step time", (Line("step", "perf/step_seconds"),)),
)


def _machines(job: Job) -> None:
    """The machines that run the job now, and its GPUs there."""
    machines = []
    with states.tolerated():
        machines = [worker for worker in service.workers() if job.id in worker.jobs]
    for number, worker in enumerate(machines):
        held = [gpu for gpu in worker.gpus if gpu.job_id == job.id]
        hint = f"{len(held)} GPU{'s' if len(held) != 1 else ''} held by this job" if held else "CPU slot, no GPU"
        with st.container(border=True, key=f"card-machine-{number}"):
            st.html(heading(f"Runs on {worker.name}", hint) + (gpu_table(held) if held else ""))


def _panel(job: Job) -> None:
    curves = read(job, metrics_of(CARDS))
    if not job.status.final:
        _machines(job)
    if not show_if_empty(job, curves):
        draw_cards(job, CARDS, curves)
    with states.tolerated():
        hours.job_hours(service.hours(job.id))


draw = live_panel(_panel)
