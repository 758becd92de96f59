"""Pictures of the health rules in the guide: planted curves, drawn by the charts of the dashboard, in
docs/screenshots/rules. A line marks the step at which the rule fires.

python -m tests.e2e.rule_pictures
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import which

import plotly
from playwright.sync_api import sync_playwright

from calibrl_core.health import HealthMonitor
from calibrl_core.health.settings import HealthSettings, RuleName
from dashboard.charts.cards import Card, Line
from dashboard.charts.series import StepSeries
from dashboard.palette import EXPERT, POLICY, VALIDATION, WRONG
from tests.e2e.conftest import FLAGS
from tests.support.health import WELL

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots" / "rules"
SCRIPT = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
STEPS, TURN, EVERY = 120, 60, 10  # the curves turn bad at step 60; validations and image measurements every 10 steps
WIDTH, HEIGHT = 640, 240  # pixels
DRAW = "figure => Plotly.newPlot('chart', figure.data, figure.layout, {staticPlot: true})"
Values = Mapping[str, float]
Planted = Callable[[float, random.Random], Values]  # of the progress after the turn, 0 to 1


def card(title: str, *lines: Line) -> Card:
    """Return a chart of these lines."""
    return Card(title, title, lines)


STRICT = Line("strict accuracy", "reward/strict_accuracy", POLICY)
REWARD = Line("mean reward", "reward/mean", WRONG)
FAILURES = Line("completions without a score", "reward/verifier_failure_share", WRONG)
PICTURES: dict[RuleName, tuple[Card, Planted]] = {
    "no_advantage": (
        card("active groups", Line("groups with an advantage", "exploration/active_groups", POLICY)),
        lambda done, chance: {"exploration/active_groups": max(0.0, 0.6 - 3 * done + chance.gauss(0, 0.05))},
    ),
    "all_truncated": (
        card("truncated", Line("truncated completions", "length/truncated_share", WRONG)),
        lambda done, chance: {"length/truncated_share": min(1.0, 0.05 + 2 * done + abs(chance.gauss(0, 0.02)))},
    ),
    "length_explosion": (
        card("length", Line("mean length (tokens)", "length/mean", POLICY)),
        lambda done, chance: {"length/mean": 100 * (1 + 3 * done) + chance.gauss(0, 6)},
    ),
    "reward_not_accuracy": (
        card("reward", REWARD, STRICT),
        lambda done, chance: {
            "reward/mean": 0.5 + 0.25 * done + chance.gauss(0, 0.01),
            "reward/strict_accuracy": 0.45 - 0.25 * done + chance.gauss(0, 0.01),
        },
    ),
    "verifier_failures": (
        card("failures", FAILURES),
        lambda done, chance: {"reward/verifier_failure_share": chance.uniform(0.4, 0.7) if done else 0.0},
    ),
    "no_verdicts": (
        card("no scores", FAILURES),
        lambda done, chance: {"reward/verifier_failure_share": float(done > 0)},
    ),
    "gradient_spikes": (
        card("gradient norm", Line("gradient norm", "loss/grad_norm", POLICY)),
        lambda done, chance: {"loss/grad_norm": 3.0 if done and chance.random() < 0.2 else chance.uniform(0.2, 0.4)},
    ),
    "sampler_mismatch": (
        card("mismatch", Line("sampler against trainer (nats per token)", "kl/sampler", WRONG)),
        lambda done, chance: {"kl/sampler": 0.005 + 0.15 * done + abs(chance.gauss(0, 0.003))},
    ),
    "expert_drift": (
        card("experts", Line("experts (nats per token)", "expert/nll", EXPERT), STRICT),
        lambda done, chance: {
            "expert/nll": 0.6 + 0.9 * done + chance.gauss(0, 0.03),
            "reward/strict_accuracy": 0.45 + chance.gauss(0, 0.01),
        },
    ),
    "overfitting": (
        card("overfitting", REWARD, Line("validation accuracy", "validation/accuracy", VALIDATION, sparse=True)),
        lambda done, chance: {
            "reward/mean": 0.5 + 0.3 * done + chance.gauss(0, 0.01),
            "validation/accuracy": 0.55 - 0.25 * done + chance.gauss(0, 0.005),
        },
    ),
    "ignores_image": (
        card("image", Line("gain of the own image (nats)", "image/gain_swap", POLICY, sparse=True)),
        lambda done, chance: {"image/gain_swap": max(0.0, 2.0 - 8 * done + chance.gauss(0, 0.05))},
    ),
}


def curves(planted: Planted, rule: RuleName) -> tuple[dict[str, StepSeries], int]:
    """Return the curves of a rule, and the step at which it fires."""
    chance, monitor, fired = random.Random(0), HealthMonitor(HealthSettings()), 0
    points: dict[str, list[tuple[int, float]]] = {}
    for step in range(1, STEPS + 1):
        values = planted(max(0.0, (step - TURN) / (STEPS - TURN)), chance)
        if step % EVERY:
            values = {name: value for name, value in values.items() if not name.startswith(("validation/", "image/"))}
        elif "validation/accuracy" in values:
            right = values["validation/accuracy"]
            values = {**values, "validation/accuracy_low": right - 0.03, "validation/accuracy_high": right + 0.03}
        for name, value in values.items():
            points.setdefault(name, []).append((step, value))
        for alert in monitor.observe(step, {**WELL, **values}):
            fired = fired or (step if alert.rule == rule and alert.state == "fired" else 0)
        if rule == "no_verdicts" and fired:
            break  # the job pauses
    return {name: StepSeries.of(*zip(*rows, strict=True)) for name, rows in points.items()}, fired


def picture(rule: RuleName) -> dict[str, object]:
    """Return the figure of a rule, with a line at the step of the alert."""
    drawn, planted = PICTURES[rule]
    series, fired = curves(planted, rule)
    assert fired > TURN, rule
    figure = json.loads(drawn.figure(series).json)
    line = {"type": "line", "x0": fired, "x1": fired, "yref": "paper", "y0": 0, "y1": 1}
    figure["layout"] |= {
        "width": WIDTH,
        "height": HEIGHT,
        "paper_bgcolor": "white",
        "shapes": [line | {"line": {"dash": "dash", "width": 1, "color": "#555"}}],
        "annotations": [
            {
                "x": fired,
                "y": 1,
                "yref": "paper",
                "xanchor": "right",
                "showarrow": False,
                "text": f"fires at step {fired} ",
            }
        ],
    }
    return dict(figure)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=which("chromium"), args=FLAGS).new_page()
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.set_content('<body style="margin:0"><div id="chart"></div></body>')
        page.add_script_tag(path=SCRIPT)
        for rule in PICTURES:
            page.evaluate(DRAW, picture(rule))
            page.screenshot(path=FOLDER / f"{rule}.png")


if __name__ == "__main__":
    main()
