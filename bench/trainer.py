"""Our training step against TRL's, on the same model, prompts, group, length, sampling, precision and threads.

    python -m bench.trainer --case tiny --case image --case text --steps 20 --seed 0

Each arm is a process that runs one step at a time, in turn (see `bench.lockstep`). All arms have the same initial
weights, the same prompts and prompt tokens per step, temperature 1, exactly `tokens` tokens per completion, a cheap
reward that differs between the completions of a group, and one fused AdamW update per step with the same learning rate,
weight decay and clipping; float32 on a CPU and bfloat16 autocast on a GPU. The first steps are not counted.

Without `--case`, the costs of `bench.trainer_costs` follow.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import report, trainer_costs
from bench.arms import ours, trl
from bench.cases import CASES, ModelCase
from bench.lockstep import Arm, Gate, Orders, TimedStep
from bench.utilisation import utilisation

STEPS = {"tiny": 30, "image": 20, "text": 5}  # timed steps per arm
WARM_UP = 2
CALIBRL_GOAL = 1.10  # goal: CalibRL's step time / GRPO's step time
PACKAGES = ("trl", "transformers", "torch")

Times = dict[str, list[TimedStep]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--case", choices=list(CASES), action="append", help="case to run; repeat for several; default: all"
    )
    parser.add_argument("--steps", type=int, help="timed steps per arm; default: by case")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON files")
    arguments = parser.parse_args()
    console = Console()
    console.print(report.circumstances(PACKAGES), soft_wrap=True)
    if warning := report.load_warning():
        console.print(warning, style="yellow")
    for name in arguments.case or CASES:
        rows = measure(CASES[name], arguments.steps or STEPS[name], arguments.seed, console)
        _show(report.write(f"trainer-{name}", rows, arguments.results), rows, console)
    if arguments.case is None:
        with console.status("costs of decoding and of images"):
            rows = trainer_costs.measure()
        _show(report.write("trainer-costs", rows, arguments.results), rows, console)


def _show(path: Path, rows: list[report.ReportRow], console: Console) -> None:
    console.print(f"\n{report.table(rows)}\n\n{path}", markup=False, highlight=False, soft_wrap=True)


def measure(case: ModelCase, steps: int, seed: int, console: Console) -> list[report.ReportRow]:
    """Measure all arms in turn on one case."""
    console.rule(f"{case.name}: {case.about}; {case.prompts} x {case.group_size} completions of {case.tokens} tokens")
    equal_steps = max(2, steps // 3) if case.prompts > 1 else 0  # equal rewards need a second group
    total = WARM_UP + steps + equal_steps
    cores = set(sorted(os.sched_getaffinity(0))[-case.threads :])
    arms = [Arm(name, loop, cores) for name, loop in _loops(case, total, seed).items()]
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("starting", total=total * len(arms))

            def shown(name: str, step: TimedStep) -> None:
                progress.update(bar, advance=1, description=f"{name} {step.seconds:.2f} s")

            _turns(arms, Orders(), WARM_UP, shown)
            mixed = _turns(arms, Orders(), steps, shown)
            equal = _turns(arms, Orders(equal_rewards=True), equal_steps, shown)
    finally:
        for arm in arms:
            arm.close()
    _require_equal_work(case, mixed)
    _show_times(mixed, console)
    if case.text_only:
        grpo = mixed["grpo"]
        console.print(utilisation(case, _phase(grpo, "rollout"), _phase(grpo, "update")), soft_wrap=True)
    return _rows(case, mixed, equal)


def _loops(case: ModelCase, steps: int, seed: int) -> dict[str, Callable[[Gate], None]]:
    loops: dict[str, Callable[[Gate], None]] = {
        "trl": partial(trl.run, case, steps, seed, False),
        "grpo": partial(ours.run, case, steps, seed, "grpo"),
        "calibrl": partial(ours.run, case, steps, seed, "calibrl"),
    }
    if case.text_only and torch.cuda.is_available():  # on a CPU its cache takes half of the machine's memory
        loops["trl, continuous batching"] = partial(trl.run, case, steps, seed, True)
    return loops


def _turns(arms: list[Arm], orders: Orders, steps: int, shown: Callable[[str, TimedStep], None]) -> Times:
    """Run the arms in turn: A B C A B C ..."""
    taken: Times = {arm.name: [] for arm in arms}
    for _ in range(steps):
        for arm in arms:
            step = arm.step(orders)
            taken[arm.name].append(step)
            shown(arm.name, step)
    return taken


def _require_equal_work(case: ModelCase, times: Times) -> None:
    expected = case.prompts * case.group_size * case.tokens
    tokens = {name: sorted({step.tokens for step in steps}) for name, steps in times.items()}
    if any(found != [expected] for found in tokens.values()):
        raise RuntimeError(f"not every arm generated {expected} tokens per step: {tokens}")


def _seconds(steps: list[TimedStep]) -> float:
    return median(step.seconds for step in steps)


def _phase(steps: list[TimedStep], phase: str) -> float:
    return median(step.phases[phase] for step in steps)


def _fastest_trl(times: Times) -> list[TimedStep]:
    return min((steps for name, steps in times.items() if name.startswith("trl")), key=_seconds)


def _rows(case: ModelCase, mixed: Times, equal: Times) -> list[report.ReportRow]:
    peer, grpo, calibrl = _fastest_trl(mixed), mixed["grpo"], mixed["calibrl"]
    rows = [
        report.at_least(f"{case.name}: GRPO step, ours and TRL's", _seconds(grpo), _seconds(peer), "s", case.goal),
        report.at_most(
            f"{case.name}: our CalibRL step and our GRPO step", _seconds(calibrl), _seconds(grpo), "s", CALIBRL_GOAL
        ),
    ]
    if equal["grpo"]:
        measure = f"{case.name}: GRPO step where half the groups have equal rewards"
        rows.append(report.no_goal(measure, _seconds(equal["grpo"]), _seconds(_fastest_trl(equal)), "s"))
    return rows


def _show_times(times: Times, console: Console) -> None:
    """Print each arm's median, fastest and slowest step, its rate, and our time per phase."""
    for name, steps in times.items():
        seconds = [step.seconds for step in steps]
        middle, low, high = median(seconds), min(seconds), max(seconds)
        rate = steps[0].tokens / middle
        phases = "".join(f", {phase} {_phase(steps, phase):.3f}" for phase in steps[0].phases)
        line = f"{name}: {middle:.3f} s per step ({low:.3f} to {high:.3f}), {rate:.0f} tokens per second{phases}"
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
