"""Where the time goes: phases of a step, tokens a second, memory, and the GPUs that the job holds."""

import streamlit as st

from calibrl.schemas import Job
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Curve
from dashboard.charts.series import Series
from dashboard.markup import GIB, gpu_table, heading
from dashboard.palette import EXPERT, NEUTRAL, POLICY, RARENESS, faded
from dashboard.panels.common import draw_live, grid, nothing, read, waiting
from dashboard.reads import data

PHASES = (  # metric, name, colour
    ("perf/rollout_seconds", "rollouts", POLICY),
    ("perf/rescore_seconds", "scored again", faded(POLICY, 0.5)),
    ("perf/reward_seconds", "rewards", RARENESS),
    ("perf/expert_seconds", "experts", EXPERT),
    ("perf/update_seconds", "update", NEUTRAL),
)
NAMES = ("perf/step_seconds", "perf/tokens_per_second", "perf/memory_bytes", *(metric for metric, *_ in PHASES))


def draw(job: Job) -> None:
    if not waiting(job):
        draw_live(job, _panel)


def _phases(of: dict[str, Series]) -> None:
    parts = [(name, of[metric], colour) for metric, name, colour in PHASES if len(of[metric])]
    live_chart.card(
        "Time by phase",
        "What a step's seconds go to. Rewards should be small beside the rest; look into a phase that grows.",
        figures.stacked(parts, unit="seconds a step", shares=False),
        key="phases",
    )


def _speed(of: dict[str, Series]) -> None:
    lines = [Curve("tokens", of["perf/tokens_per_second"], POLICY)]
    live_chart.card(
        "Speed",
        "Completion tokens over a step's seconds. A lasting fall means that something else uses the machine.",
        figures.curves(lines, unit="tokens a second", value_format=",.0f"),
        key="speed",
    )


def _memory(of: dict[str, Series]) -> None:
    seen = of["perf/memory_bytes"]
    lines = [Curve("most so far", Series.of(seen.steps.tolist(), (seen.values / GIB).tolist()), NEUTRAL)]
    live_chart.card(
        "Memory",
        "Of tensors on the GPU, or of the whole trainer on a CPU. Growth after the first steps ends in a crash.",
        figures.curves(lines, unit="GiB", value_format=".2f"),
        key="memory",
    )


def _step(of: dict[str, Series]) -> None:
    live_chart.card(
        "Time a step",
        "Without validation, checkpoints and samples. Spikes: long completions, or a busy machine.",
        figures.curves([Curve("a step", of["perf/step_seconds"], NEUTRAL)], unit="seconds"),
        key="step-seconds",
    )


def _machines(job: Job) -> None:
    """The machine that runs it now, and its GPUs there."""
    machines = []
    with states.tolerated():
        machines = [worker for worker in data.workers() if job.id in worker.jobs]
    for worker in machines:
        held = [gpu for gpu in worker.gpus if gpu.job_id == job.id]
        hint = "GPUs that this job holds." if held else "It holds no GPU: it runs in a CPU slot."
        with st.container(border=True, key="card-machine"):
            st.html(heading(f"Runs on {worker.name}", hint) + (gpu_table(held) if held else ""))


def _panel(job: Job) -> None:
    of = read(job, NAMES)
    if not job.status.final:
        _machines(job)
    if not nothing(job, of):
        grid([lambda: _phases(of), lambda: _speed(of), lambda: _memory(of), lambda: _step(of)])
