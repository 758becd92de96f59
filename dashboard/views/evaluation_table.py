"""Evaluations side by side: what each model reached on a data set, and whether two can be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Comparison, Evaluation, EvaluationResult, Job, Measured, PairedDifference
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Figure
from dashboard.markup import chip, escape, table
from dashboard.palette import MODELS, NEUTRAL, POLICY
from dashboard.reads import catalogue, data

SHARES = ("accuracy", "greedy_accuracy", "pass_at_k", "majority_at_k", "strict_accuracy")
LABELS = {
    "accuracy": "Accuracy",
    "greedy_accuracy": "Greedy",
    "pass_at_k": "Pass@k",
    "majority_at_k": "Majority@k",
    "strict_accuracy": "Strict",
    "length_mean": "Mean length (tokens)",
}
PAIRS = 60  # that are listed of a data set
Place = tuple[UUID, int]  # an evaluation, and one of its models


@dataclass(frozen=True)
class Row:
    """One model of one evaluation on one data set."""

    place: Place
    name: str
    colour: str
    result: EvaluationResult


def model_name(chosen: Mapping[str, Any], loaded: str) -> str:
    """What to call a model: the job that the spec names, a built-in one with its seed, or the end of its path."""
    if "from_job" in chosen:
        try:
            name = data.job(str(chosen["from_job"])).name
        except CalibrlError:  # deleted, or in a project that the viewer does not see
            name = f"job {str(chosen['from_job'])[:8]}"
        return f"{name} ({chosen.get('checkpoint', 'best')})"
    if "builtin" in chosen:
        return f"{chosen['builtin']}, seed {chosen.get('seed', 0)}"
    return "/".join(Path(loaded).parts[-2:])


def _names(jobs: Sequence[Job], found: Mapping[Place, EvaluationResult]) -> dict[Place, str]:
    """A name for each model; where two have one name, with the evaluation's before it, and its id's beginning."""
    plain = {place: model_name(result.chosen, result.model) for place, result in found.items()}
    of = {job.id: job.name for job in jobs}
    longer = {place: f"{of[place[0]]}: {name}" for place, name in plain.items()}

    def told_apart(name: str, names: Mapping[Place, str]) -> bool:
        return [*names.values()].count(name) == 1

    return {
        place: name
        if told_apart(name, plain)
        else longer[place]
        if told_apart(longer[place], longer)
        else f"{longer[place]} {str(place[0])[:8]}.{place[1]}"
        for place, name in plain.items()
    }


def rows(evaluations: Sequence[tuple[Job, Evaluation]]) -> dict[str, list[Row]]:
    """The models of these evaluations by data set; each keeps its colour on all of them."""
    jobs = [job for job, _ in evaluations]
    results = [(job.id, result) for job, found in evaluations for result in found.results]
    first = {(id, result.model_index): result for id, result in reversed(results)}
    places = list(dict.fromkeys((id, result.model_index) for id, result in results))
    names = _names(jobs, first)
    by_split: dict[str, list[Row]] = {}
    for id, result in results:
        place = (id, result.model_index)
        colour = MODELS[places.index(place) % len(MODELS)]
        by_split.setdefault(result.split, []).append(Row(place, names[place], colour, result))
    return by_split


def _draw(split: str, of: Sequence[Row], comparison: Comparison | None, *, key: str) -> None:
    """One data set: the figures as dots and as a table, and the verdict on each pair."""
    measured = [name for name in SHARES if any(_value(row, name) is not None for row in of)]
    live_chart.card(
        f"Accuracy on {split}",
        f"Dots are models, lines their 95 % interval over {of[0].result.prompts} prompts. Whether two differ is said "
        "by the paired differences below, not by whether lines overlap.",
        _figure(measured, of),
        key=f"accuracy-{key}",
    )
    shown = [name for name in LABELS if any(_value(row, name) is not None for row in of)]
    st.html(table(("Model", "Prompts", *(LABELS[name] for name in shown)), [_figures(row, shown) for row in of]))
    if comparison:
        _verdicts(comparison, of)


def _read(jobs: Sequence[Job]) -> list[tuple[Job, Evaluation]]:
    """What each found; of those that left no such figures, why not stands on the page."""
    found = []
    for job in jobs:
        one = catalogue.tried(job.id)
        if isinstance(one, CalibrlError):
            st.text(f"{job.name} is left out: {one.detail or one}")
        else:
            found.append((job, one))
    return found


def _comparisons(jobs: Sequence[Job], models: int) -> dict[str, Comparison]:
    """By data set; none, with the reason on the page, where the evaluations can't be compared."""
    if models < 2:
        return {}
    try:
        with st.spinner("Comparing prompt by prompt …"):
            return {found.split: found for found in catalogue.comparison(tuple(job.id for job in jobs))}
    except CalibrlError as error:
        if error.status != 409:
            raise
        st.warning("These can't be compared prompt by prompt:", icon=":material/info:")
        st.text(error.detail or str(error))
    return {}


def side_by_side(jobs: Sequence[Job]) -> None:
    """Evaluations that have succeeded, data set by data set."""
    evaluations = _read(jobs)
    by_split = rows(evaluations)
    places = {row.place for found in by_split.values() for row in found}
    comparisons = _comparisons([job for job, _ in evaluations], len(places))
    for number, (split, found) in enumerate(by_split.items()):
        _draw(split, found, comparisons.get(split), key=f"{number}")


def _value(row: Row, name: str) -> float | None:
    measured = row.result.metrics.get(name)
    return measured.value if measured else None


def _figure(measured: Sequence[str], of: Sequence[Row]) -> Figure:
    def flat(metrics: Mapping[str, Measured]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, one in metrics.items():
            found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        return {name: value for name, value in found.items() if value is not None}

    return figures.intervals(measured, [{"model": row.name, "metrics": flat(row.result.metrics)} for row in of])


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


def _figures(row: Row, shown: Sequence[str]) -> str:
    cells = "".join(
        f'<td data-label="{LABELS[name]}">{_cell(row.result.metrics.get(name), name)}</td>' for name in shown
    )
    return (
        f"<tr><td>{_dot(row.colour)} {escape(row.name)}</td>"
        f'<td data-label="Prompts">{row.result.prompts:,}</td>{cells}</tr>'
    )


def verdict(pair: PairedDifference, first: str, second: str) -> str:
    """What a paired difference says, in words."""
    if not pair.distinguishable:
        return "not distinguishable"
    return f"{second if pair.difference > 0 else first} is better"


def _pair(pair: PairedDifference, named: Sequence[Row]) -> str:
    first, second = named[pair.first], named[pair.second]
    said = verdict(pair, first.name, second.name)
    sign = "≠" if pair.distinguishable else "≈"
    between = f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}"
    return (
        f"<tr><td>{_dot(second.colour)} {escape(second.name)} less {_dot(first.colour)} {escape(first.name)}</td>"
        f'<td data-label="Difference">{100 * pair.difference:+.1f} points</td><td data-label="95 %">{between}</td>'
        f"<td>{chip(f'{sign} {said}', POLICY if pair.distinguishable else NEUTRAL)}</td></tr>"
    )


def _verdicts(comparison: Comparison, of: Sequence[Row]) -> None:
    by_place = {row.place: row for row in of}
    named = [by_place[(model.job_id, model.model_index)] for model in comparison.models]
    st.caption(
        f"Paired over {comparison.prompts:,} prompts: of each prompt one model's accuracy less the other's. Where the "
        "interval covers 0, these figures can't tell the two apart."
    )
    pairs = [_pair(pair, named) for pair in comparison.pairs[:PAIRS]]
    st.html(table(("Pair", "Difference", "95 % interval", "Verdict"), pairs))
    if len(comparison.pairs) > PAIRS:
        st.caption(f"The first {PAIRS} of {len(comparison.pairs)} pairs are shown; `calibrl compare` lists all.")
    if comparison.settings_differ:
        differ = " and ".join(comparison.settings_differ)
        st.warning(f"The evaluations differ in {differ} too: not only the models do.", icon=":material/info:")
