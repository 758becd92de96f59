"""Time per step phase, throughput, hardware over time, the GPUs that the job holds, and what its hours bought."""

from collections.abc import Iterable, Mapping, Sequence

import streamlit as st

from calibrl.schemas import GIB, Job
from dashboard import states
from dashboard.charts.cards import Card, Line, StackCard, metrics_of
from dashboard.markup import gpu_table, heading
from dashboard.palette import EXPERT, MODELS, NEUTRAL, POLICY, RARENESS, faded
from dashboard.panels.common import PanelCard, draw_cards, live_panel, read, show_if_empty
from dashboard.panels.panel import Panel
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


HARDWARE = (  # of each process: metric, title, unit, scale
    ("gpu_utilisation", "GPU utilisation", "%", 1.0),
    ("gpu_memory_bytes", "GPU memory in use", "GiB", 1 / GIB),
    ("cpu_cores", "CPU use", "cores", 1.0),
    ("host_memory_bytes", "Host memory", "GiB", 1 / GIB),
)


MOST_PROCESSES = 12  # lines of a card; one call of the API returns at most 64 metrics
DASHES = ("solid", "dash", "dot")  # of processes of the same colour


def _ranks(names: Iterable[str]) -> dict[str, set[int]]:
    """The processes that report each reading of the hardware."""
    ranks: dict[str, set[int]] = {}
    for name in names:
        metric, _, rank = name.removeprefix("perf/").partition("/")
        if rank.isdecimal():
            ranks.setdefault(metric, set()).add(int(rank))
    return {metric: ranks[metric] for metric, *_ in HARDWARE if metric in ranks}


def _hardware(ranks: Mapping[str, set[int]], shown: Sequence[int]) -> list[Card]:
    """A card per reading of the hardware that the job reports, with a line per shown process."""
    return [
        Card(
            metric.replace("_", "-"),
            title,
            tuple(_process(metric, rank) for rank in shown if rank in ranks[metric]),
            unit=unit,
            value_format=".2f",
            scale=scale,
        )
        for metric, title, unit, scale in HARDWARE
        if not ranks.get(metric, set()).isdisjoint(shown)
    ]


def _process(metric: str, rank: int) -> Line:
    more, colour = divmod(rank, len(MODELS))
    return Line(f"process {rank}", f"perf/{metric}/{rank}", MODELS[colour], DASHES[more % len(DASHES)])


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
    names: list[str] = []
    with states.tolerated():
        names = service.metric_names(job.id)
    ranks = _ranks(names)
    processes = sorted(set().union(*ranks.values()))
    cards: tuple[PanelCard, ...] = (*CARDS, *_hardware(ranks, processes[:MOST_PROCESSES]))
    curves = read(job, metrics_of(cards))
    if not job.status.final:
        _machines(job)
    if not show_if_empty(job, curves):
        draw_cards(job, cards, curves)
        if len(processes) > MOST_PROCESSES:
            st.caption(f"Hardware: first {MOST_PROCESSES} of {len(processes)} processes. The Metrics panel has all.")
    with states.tolerated():
        hours.job_hours(service.hours(job.id))


draw = live_panel(_panel)


PANELS = (Panel("System", draw, 90, charted=True),)
