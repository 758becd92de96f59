"""Evaluations in one table: the metrics of each model per dataset, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Comparison, Evaluation, EvaluationResult, JobSummary, Measured, PairedDifference
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import ChartFigure
from dashboard.markup import chip, escape, table
from dashboard.palette import MODELS, NEUTRAL, POLICY
from dashboard.reads import catalogue, service

CHANGED = {"accuracy_blank": "Blank image", "accuracy_shuffle": "Shuffled image", "accuracy_swap": "Swapped image"}
SHARES = ("accuracy", *CHANGED, "greedy_accuracy", "pass_at_k", "majority_at_k", "strict_accuracy")
LABELS = {
    "accuracy": "Accuracy",
    **CHANGED,
    "greedy_accuracy": "Greedy",
    "pass_at_k": "pass@k",
    "majority_at_k": "majority@k",
    "strict_accuracy": "Strict",
    "length_mean": "Mean length (tokens)",
}
MAX_PAIRS = 60  # listed per dataset
Place = tuple[UUID, int]  # an evaluation, and one of its models


@dataclass(frozen=True)
class ResultRow:
    """One model of one evaluation on one dataset."""

    place: Place
    name: str
    colour: str
    result: EvaluationResult


def model_name(model: Mapping[str, Any], loaded: str) -> str:
    """Return a model's name: its job and checkpoint, the built-in model with its seed, the model of the hub with its
    commit, or the end of its path."""
    if "from_job" in model:
        try:
            name = service.job(str(model["from_job"])).name
        except CalibrlError:  # deleted, or in a project without access
            name = f"job {str(model['from_job'])[:8]}"
        return f"{name} ({model.get('checkpoint', 'best')})"
    if "builtin" in model:
        return f"{model['builtin']}, seed {model.get('seed', 0)}"
    if "hub" in model:
        return f"{model['hub']} @ {str(model['revision'])[:12]}"
    return "/".join(Path(loaded).parts[-2:])


def _names(jobs: Sequence[JobSummary], results: Mapping[Place, EvaluationResult]) -> dict[Place, str]:
    """A unique name per model: with the evaluation's name, and then with its ID prefix, if that is needed."""
    plain = {place: model_name(result.chosen, result.model) for place, result in results.items()}
    job_names = {job.id: job.name for job in jobs}
    longer = {place: f"{job_names[place[0]]}: {name}" for place, name in plain.items()}

    def is_unique(name: str, names: Mapping[Place, str]) -> bool:
        return [*names.values()].count(name) == 1

    return {
        place: name
        if is_unique(name, plain)
        else longer[place]
        if is_unique(longer[place], longer)
        else f"{longer[place]} {str(place[0])[:8]}.{place[1]}"
        for place, name in plain.items()
    }


def rows(evaluations: Sequence[tuple[JobSummary, Evaluation]]) -> dict[str, list[ResultRow]]:
    """Return the models of these evaluations by dataset; a model has the same colour on every dataset."""
    jobs = [job for job, _ in evaluations]
    results = [(job.id, result) for job, evaluation in evaluations for result in evaluation.results]
    first = {(id, result.model_index): result for id, result in reversed(results)}
    places = list(dict.fromkeys((id, result.model_index) for id, result in results))
    names = _names(jobs, first)
    by_split: dict[str, list[ResultRow]] = {}
    for id, result in results:
        place = (id, result.model_index)
        colour = MODELS[places.index(place) % len(MODELS)]
        by_split.setdefault(result.split, []).append(ResultRow(place, names[place], colour, result))
    return by_split


def _split(split: str, rows: Sequence[ResultRow], comparison: Comparison | None, *, key: str) -> None:
    """Draw one dataset: the metrics as dots and as a table, and the paired differences."""
    shares = [name for name in SHARES if any(_value(row, name) is not None for row in rows)]
    live_chart.card(
        f"Accuracy on {split}",
        f"Dots: models. Lines: 95 % intervals over {rows[0].result.prompts} prompts. To compare two models, use the "
        "paired differences below: intervals can overlap although the models differ.",
        _figure(shares, rows),
        key=f"accuracy-{key}",
    )
    names = [name for name in LABELS if any(_value(row, name) is not None for row in rows)]
    labels = _labels(rows)
    titles = ("Model", "Prompts", *(labels[name] for name in names))
    st.html(table(titles, [_row(row, names, labels) for row in rows]))
    if comparison:
        _paired_differences(comparison, rows)


def _read(jobs: Sequence[JobSummary]) -> list[tuple[JobSummary, Evaluation]]:
    """The results of each evaluation; the page names those that cannot be read."""
    evaluations = []
    for job in jobs:
        evaluation = catalogue.try_read(job.id)
        if isinstance(evaluation, CalibrlError):
            st.text(f"{job.name} is not shown: {evaluation.detail or evaluation}")
        else:
            evaluations.append((job, evaluation))
    return evaluations


def _comparisons(jobs: Sequence[JobSummary], models: int) -> dict[str, Comparison]:
    """Comparisons by dataset; none, with the reason on the page, if the evaluations cannot be compared."""
    if models < 2:
        return {}
    try:
        with st.spinner("Comparing prompt by prompt…"):
            comparisons = catalogue.comparison(tuple(job.id for job in jobs))
    except CalibrlError as error:
        if error.status != 409:
            raise
        st.warning("Not comparable prompt by prompt:", icon=":material/info:")
        st.text(error.detail or str(error))
        return {}
    return {comparison.split: comparison for comparison in comparisons}


def draw(jobs: Sequence[JobSummary]) -> None:
    """Draw the results of succeeded evaluations, one dataset after the other."""
    evaluations = _read(jobs)
    by_split = rows(evaluations)
    places = {row.place for split_rows in by_split.values() for row in split_rows}
    comparisons = _comparisons([job for job, _ in evaluations], len(places))
    for number, (split, split_rows) in enumerate(by_split.items()):
        _split(split, split_rows, comparisons.get(split), key=f"{number}")


def _labels(rows: Sequence[ResultRow]) -> dict[str, str]:
    """Labels of the metrics, with the number of samples in place of k if it is the same for all."""
    samples = {row.result.samples for row in rows}
    k = str(*samples) if len(samples) == 1 else "k"
    return {name: label.replace("@k", f"@{k}") for name, label in LABELS.items()}


def _value(row: ResultRow, name: str) -> float | None:
    measured = row.result.metrics.get(name)
    return measured.value if measured else None


def _figure(names: Sequence[str], rows: Sequence[ResultRow]) -> ChartFigure:
    def flat(metrics: Mapping[str, Measured]) -> dict[str, float | None]:
        values: dict[str, float | None] = {}
        for name, measured in metrics.items():
            values |= {name: measured.value, f"{name}_low": measured.low, f"{name}_high": measured.high}
        return {name: value for name, value in values.items() if value is not None}

    results = [{"model": row.name, "metrics": flat(row.result.metrics)} for row in rows]
    return figures.intervals(names, results, _labels(rows))


def _cell(measured: Measured | None, name: str) -> str:
    if measured is None or measured.value is None:
        return "–"
    if name not in SHARES:
        return f"{measured.value:.1f}"
    if measured.low is None or measured.high is None:
        return f"{measured.value:.1%}"
    between = f"{measured.low:.1%} to {measured.high:.1%}"
    return f'{measured.value:.1%} <span style="opacity:.75;white-space:nowrap">({between})</span>'


def _dot(colour: str) -> str:
    return f'<span aria-hidden="true" style="color:{colour}">●</span>'


def _row(row: ResultRow, names: Sequence[str], labels: Mapping[str, str]) -> str:
    cells = "".join(
        f'<td data-label="{labels[name]}">{_cell(row.result.metrics.get(name), name)}</td>' for name in names
    )
    return (
        f"<tr><td>{_dot(row.colour)} {escape(row.name)}</td>"
        f'<td data-label="Prompts">{row.result.prompts:,}</td>{cells}</tr>'
    )


def verdict(pair: PairedDifference, first: str, second: str) -> str:
    """Return the meaning of a paired difference, in words."""
    if not pair.distinguishable:
        return "not significant"
    return f"{second if pair.difference > 0 else first} is better (95 %)"


def _pair_row(pair: PairedDifference, models: Sequence[ResultRow]) -> str:
    first, second = models[pair.first], models[pair.second]
    text = verdict(pair, first.name, second.name)
    between = f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f} pp"
    return (
        f"<tr><td>{_dot(second.colour)} {escape(second.name)} − {_dot(first.colour)} {escape(first.name)}</td>"
        f'<td data-label="Difference">{100 * pair.difference:+.1f} pp</td><td data-label="95 % interval">{between}</td>'
        f"<td>{chip(text, POLICY if pair.distinguishable else NEUTRAL)}</td></tr>"
    )


def _paired_differences(comparison: Comparison, rows: Sequence[ResultRow]) -> None:
    by_place = {row.place: row for row in rows}
    models = [by_place[(model.job_id, model.model_index)] for model in comparison.models]
    st.caption(
        f"Paired differences A − B of accuracy over {comparison.prompts:,} prompts. If the interval covers 0, the "
        "difference is not significant."
    )
    pairs = [_pair_row(pair, models) for pair in comparison.pairs[:MAX_PAIRS]]
    st.html(table(("A − B", "Difference", "95 % interval", "Result"), pairs))
    if len(comparison.pairs) > MAX_PAIRS:
        st.caption(f"First {MAX_PAIRS} of {len(comparison.pairs)} pairs. `calibrl compare` lists all.")
    if comparison.settings_differ:
        differ = " and ".join(comparison.settings_differ)
        st.warning(f"The evaluations also differ in {differ}, not only in the models.", icon=":material/info:")
