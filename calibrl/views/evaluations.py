"""Output of the commands of evaluations: data in, renderables and text out."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from calibrl.schemas import Comparison, Evaluation, Measured, PairedDifference, Replay, Rescored
from calibrl.views.terminal import plain, table_of

NONE = "–"
SHOWN = {  # of an evaluation's metrics, where it has them
    "accuracy": "ACCURACY",
    "strict_accuracy": "IN THE FORMAT",
    "greedy_accuracy": "GREEDY",
    "pass_at_k": "PASS@K",
    "majority_at_k": "MAJORITY@K",
}


def evaluation_page(found: Evaluation) -> RenderableType:
    """Return each model on each dataset with intervals, and the comparison of the models."""
    shown = {name: title for name, title in SHOWN.items() if any(name in row.metrics for row in found.results)}
    table = table_of("SPLIT", ">#", "MODEL~", ">PROMPTS", *(f">{title}" for title in shown.values()))
    for row in found.results:
        places = (str(row.model_index), Text(model_name(row.chosen)), str(row.prompts))
        table.add_row(Text(plain(row.split)), *places, *(measured(row.metrics.get(name)) for name in shown))
        for source, part in row.sources.items():
            cells = (measured(part.metrics.get(name)) for name in shown)
            table.add_row(Text(f"  {plain(source)}", style="dim"), "", "", str(part.prompts), *cells)
    pairs = table_of("SPLIT", "COMPARED~", ">DIFFERENCE", "VERDICT")
    for pair in found.comparisons:
        pairs.add_row(Text(plain(pair.split)), f"#{pair.second} against #{pair.first}", points(pair), verdict(pair))
    return Group(table, Text(), pairs) if found.comparisons else table


def comparison_page(found: Comparison) -> RenderableType:
    """Return the models on a dataset and the difference of each pair."""
    head = f"{plain(found.split)}: {found.prompts} prompts"
    if found.settings_differ:
        head += f"; the evaluations differ in {' and '.join(found.settings_differ)}, too"
    models = table_of(">#", "EVALUATION", "NAME~", "MODEL~", ">ACCURACY")
    for place, one in enumerate(found.models):
        job, name, model = (
            f"{str(one.job_id)[:8]}:{one.model_index}",
            Text(plain(one.job)),
            Text(model_name(one.chosen)),
        )
        models.add_row(str(place), job, name, model, f"{one.accuracy:.1%}")
    pairs = table_of("COMPARED", ">DIFFERENCE", "VERDICT")
    for pair in found.pairs:
        pairs.add_row(f"#{pair.second} against #{pair.first}", points(pair), verdict(pair))
    return Group(Text(head, style="bold"), models, Text(), pairs)


def replay_page(found: Replay) -> RenderableType:
    """Return the changed verdicts."""
    lines = [
        f"{found.scored} of {found.completions} completions scored" + (f": {found.stopped}" if found.stopped else ""),
        f"passed before {found.passed_before}, now {found.passed_after}: {found.now_passed} pass that did not, "
        f"{found.now_failed} do not that did",
        f"rewards changed: {found.rewards_changed}; without a verdict: {found.failures}",
    ]
    table = table_of(">SAMPLE", ">STEP", ">COMPLETION", "PROMPT~", ">REWARD BEFORE", ">NOW", "VERDICT~")
    for one in found.data:
        before = NONE if one.reward_before is None else f"{one.reward_before:.4g}"
        places = (str(one.sample_id), str(one.step), str(one.completion), Text(plain(one.prompt_id)))
        table.add_row(*places, before, f"{one.reward_after:.4g}", Text(_flip(one)))
    text = Text("\n".join(map(plain, lines)))
    return Group(text, Text(), table) if found.data else text


def model_name(chosen: Mapping[str, Any]) -> str:
    """Return a short name of a model of a spec."""
    if "from_job" in chosen:
        return plain(f"{str(chosen['from_job'])[:8]} ({chosen.get('checkpoint', 'best')})")
    return plain("/".join(PurePath(str(chosen.get("path") or chosen.get("builtin", NONE))).parts[-2:]))


def measured(metric: Measured | None) -> str:
    """Return a share with its interval."""
    if metric is None or metric.value is None:
        return NONE
    bounds = "" if metric.low is None or metric.high is None else f" ({metric.low:.1%} to {metric.high:.1%})"
    return f"{metric.value:.1%}{bounds}"


def points(pair: PairedDifference) -> str:
    """Return a difference of shares in percentage points, with its interval."""
    return f"{pair.difference * 100:+.1f} points ({pair.low * 100:+.1f} to {pair.high * 100:+.1f})"


def verdict(pair: PairedDifference) -> str:
    """Return the conclusion from a difference, in words."""
    if not pair.distinguishable:
        return "not distinguishable"
    better = pair.second if pair.difference > 0 else pair.first
    return f"#{better} is better"


def _flip(one: Rescored) -> str:
    words = {(False, True): "now passes", (True, False): "no longer passes"}
    change = words.get((one.passed_before, one.passed_after), "")
    return "; ".join(filter(None, (change, plain(one.failure or ""))))
