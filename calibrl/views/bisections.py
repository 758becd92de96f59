"""Output of `calibrl bisect`: the probes, the first bad update with its groups, and commands that fork before it."""

import json
from shlex import quote

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import BadUpdate, Bisection, SpecChange
from calibrl.views.terminal import plain, table_of


def bisection_page(result: Bisection, training: str) -> RenderableType:
    """Return the result of a bisection. `training`: id of the bisected job."""
    head = (
        f"{result.rule} fired at step {result.fired_step}. Probe: {result.measure} of {result.samples} completions of "
        f"each of {result.prompts:,} validation prompts"
    )
    parts: list[RenderableType] = [Text(head), Text(), _probes(result), Text(), Text(_finding(result))]
    if result.update is not None and result.update.groups:
        parts += [Text(), _groups(result.update)]
    parts += [Text(), Text(f"Fork from step {result.last_good}, the last good checkpoint:")]
    parts += [Text(_fork(change, training, result.last_good)) for change in result.changes]
    return Group(*parts)


def _probes(result: Bisection) -> Table:
    table = table_of(">STEP", ">VALUE", ">DIFFERENCE", "95 % INTERVAL", "VERDICT", "POLICY")
    for place, probe in enumerate(result.probes):
        interval = f"{probe.low:+.3f} to {probe.high:+.3f}"
        compared = (f"{probe.difference:+.3f}", interval, "worse" if probe.worse else "")
        shown = compared if place else ("", "", "reference")
        table.add_row(
            f"{probe.step:,}", f"{probe.value:.3f}", *shown, "step taken again" if probe.replayed else "checkpoint"
        )
    return table


def _finding(result: Bisection) -> str:
    if result.first_bad is None:
        return "No checkpoint is worse than the reference by more than the noise of the probe."
    if result.update is None:
        return (
            f"It went wrong between step {result.last_good} and step {result.first_bad}. The steps taken again did not "
            "repeat it."
        )
    norm = "not finite" if result.update.gradient_norm is None else f"{result.update.gradient_norm:.4g}"
    return (
        f"First bad update: step {result.update.step} (gradient norm {norm}, learning rate "
        f"{result.update.learning_rate:.3g})"
    )


def _groups(update: BadUpdate) -> Table:
    table = table_of("GROUP~", ">GRADIENT NORM", ">PASSED", ">REWARD")
    for group in update.groups:
        passed = f"{group.passed} of {group.rollouts}"
        table.add_row(Text(plain(group.prompt_id)), f"{group.gradient_norm:.4g}", passed, f"{group.reward:.3f}")
    return table


def _fork(change: SpecChange, training: str, step: int) -> str:
    settings = (
        f"{part}.{name}={json.dumps(value)}" if name else f"{part}={json.dumps(value)}"
        for part, inner in change.changes.items()
        for name, value in (inner.items() if isinstance(inner, dict) else [("", inner)])
    )
    options = " ".join(f"--set {quote(setting)}" for setting in settings)
    return f"  {change.reason}\n    calibrl fork {training} --checkpoint {step} {options}"
