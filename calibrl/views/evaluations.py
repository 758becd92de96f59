"""Output of the commands of evaluations: data in, renderables and text out."""

import re
from pathlib import PurePath

from rich.console import Group, RenderableType
from rich.text import Text

from calibrl.schemas import (
    ComparedModel,
    Comparison,
    Evaluation,
    EvaluationResult,
    Measured,
    PairedDifference,
    Replay,
    Rescored,
)
from calibrl.views.terminal import plain, sparkline, table_of

NONE = "–"
SHOWN = {  # of an evaluation's metrics, where it has them
    "accuracy": "ACCURACY",
    "accuracy_blank": "BLANK IMAGE",
    "accuracy_shuffle": "SHUFFLED",
    "accuracy_swap": "SWAPPED",
    "strict_accuracy": "IN THE FORMAT",
    "greedy_accuracy": "GREEDY",
    "pass_at_k": "PASS@K",
    "majority_at_k": "MAJORITY@K",
}
_STEP = re.compile(r"/step-(\d+)")  # of the folder of a checkpoint


def evaluation_page(evaluation: Evaluation) -> RenderableType:
    """Return each model on each dataset with intervals, and the comparison of the models."""
    shown = {name: title for name, title in SHOWN.items() if any(name in row.metrics for row in evaluation.results)}
    table = table_of("SPLIT", ">#", "MODEL~", ">PROMPTS", *(f">{title}" for title in shown.values()))
    for row in evaluation.results:
        places = (str(row.model_index), Text(model_name(row)), str(row.prompts))
        table.add_row(Text(plain(row.split)), *places, *(measured(row.metrics.get(name)) for name in shown))
        for source, part in row.sources.items():
            cells = (measured(part.metrics.get(name)) for name in shown)
            table.add_row(Text(f"  {plain(source)}", style="dim"), "", "", str(part.prompts), *cells)
    pairs = table_of("SPLIT", "COMPARED~", ">DIFFERENCE", "VERDICT")
    for pair in evaluation.comparisons:
        pairs.add_row(Text(plain(pair.split)), f"#{pair.second} against #{pair.first}", points(pair), verdict(pair))
    return Group(table, Text(), pairs) if evaluation.comparisons else table


def comparison_page(comparison: Comparison) -> RenderableType:
    """Return the models on a dataset and the difference of each pair."""
    head = f"{plain(comparison.split)}: {comparison.prompts} prompts"
    if comparison.settings_differ:
        head += f"; the evaluations differ in {' and '.join(comparison.settings_differ)}, too"
    models = table_of(">#", "EVALUATION", "NAME~", "MODEL~", ">ACCURACY")
    for place, compared in enumerate(comparison.models):
        job, name, model = (
            f"{str(compared.job_id)[:8]}:{compared.model_index}",
            Text(plain(compared.job)),
            Text(model_name(compared)),
        )
        models.add_row(str(place), job, name, model, f"{compared.accuracy:.1%}")
    pairs = table_of("COMPARED", ">DIFFERENCE", "VERDICT")
    for pair in comparison.pairs:
        pairs.add_row(f"#{pair.second} against #{pair.first}", points(pair), verdict(pair))
    return Group(Text(head, style="bold"), models, Text(), pairs)


def _curves(replay: Replay) -> list[str]:
    """Return the shares of passed completions by step, in the run and scored again; none for a single step."""
    if len(replay.by_step) < 2:
        return []
    before = [one.passed_before / one.scored for one in replay.by_step]
    after = [one.passed_after / one.scored for one in replay.by_step]
    steps = f"steps {replay.by_step[0].step} to {replay.by_step[-1].step}"
    return [
        f"{steps}, {name}: {sparkline(values)} {values[0]:.0%} to {values[-1]:.0%}"
        for name, values in (("passed in the run", before), ("scored again", after))
    ]


def replay_page(replay: Replay) -> RenderableType:
    """Return the changed verdicts."""
    stopped = replay.stopped
    lines = [
        f"{replay.scored} of {replay.completions} completions scored" + (f": {stopped}" if stopped else ""),
        f"passed before {replay.passed_before}, now {replay.passed_after}: newly passing {replay.now_passed}, "
        f"newly failing {replay.now_failed}",
        f"rewards changed: {replay.rewards_changed}; without a verdict: {replay.failures}",
        *_curves(replay),
    ]
    table = table_of(">SAMPLE", ">STEP", ">COMPLETION", "PROMPT~", ">REWARD BEFORE", ">NOW", "VERDICT~")
    for rescored in replay.data:
        before = NONE if rescored.reward_before is None else f"{rescored.reward_before:.4g}"
        places = (
            str(rescored.sample_id),
            str(rescored.step),
            str(rescored.completion),
            Text(plain(rescored.prompt_id)),
        )
        table.add_row(*places, before, f"{rescored.reward_after:.4g}", Text(_flip(rescored)))
    text = Text("\n".join(map(plain, lines)))
    return Group(text, Text(), table) if replay.data else text


def model_name(measured: EvaluationResult | ComparedModel) -> str:
    """Return a short name of a model: of a job its name, and the step that the worker loaded."""
    model = measured.chosen
    if "from_job" in model:
        step = _STEP.search(measured.model)
        choice = f"step {int(step[1])}" if step else model.get("checkpoint", "best")
        return plain(f"{measured.chosen_name or str(model['from_job'])[:8]} ({choice})")
    source = model.get("path") or model.get("hub") or model.get("builtin", NONE)
    return plain("/".join(PurePath(str(source)).parts[-2:]))


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


def _flip(rescored: Rescored) -> str:
    words = {(False, True): "now passes", (True, False): "no longer passes"}
    change = words.get((rescored.passed_before, rescored.passed_after), "")
    return "; ".join(filter(None, (change, plain(rescored.failure or ""))))
