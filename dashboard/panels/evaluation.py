"""Results of an evaluation job: each model on each split, with intervals."""

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import charts, data, live_chart, states
from jobs.schemas import Job

SHARES = ("accuracy", "greedy_accuracy", "pass_at_k", "majority_at_k", "strict_accuracy")
LABELS = {
    "accuracy": "Accuracy",
    "greedy_accuracy": "Greedy",
    "pass_at_k": "Pass@k",
    "majority_at_k": "Majority@k",
    "strict_accuracy": "Strict",
    "length_mean": "Mean length (tokens)",
}


def draw(job: Job) -> None:
    results: list[dict[str, Any]] = (job.result or {}).get("results", [])
    if not results:
        text = (
            "The job ended without results." if job.status.final else "Results appear here when the evaluation is done."
        )
        states.empty("No results" if job.status.final else "Not measured yet", text)
        return
    results = [result | {"model": _model(job, result)} for result in results]
    for number, split in enumerate(dict.fromkeys(result["split"] for result in results)):
        _split(str(split), [result for result in results if result["split"] == split], key=f"split-{number}")


def _model(job: Job, result: dict[str, Any]) -> str:
    """What to call an evaluated model: the job that the spec names, else the end of what the result says."""
    models = job.spec.get("models", [])
    index = result.get("model_index", len(models))
    source = models[index] if index < len(models) else {}
    if "from_job" in source:
        return f"{data.job(source['from_job']).name} ({source.get('checkpoint', 'best')})"
    return "/".join(Path(str(result["model"])).parts[-2:])


def _cell(metrics: dict[str, Any], name: str) -> str:
    """A metric with its interval, as text."""
    value = metrics.get(name)
    if not isinstance(value, int | float):
        return "–"
    if name not in SHARES:
        return f"{value:.1f}"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return f"{value:.1%}"
    return f"{value:.1%}  ({low:.1%} to {high:.1%})"


def _split(split: str, results: list[dict[str, Any]], *, key: str) -> None:
    measured = [name for name in SHARES if any(result["metrics"].get(name) is not None for result in results)]
    prompts = results[0].get("prompts", "?")
    live_chart.card(
        f"Accuracy on {split}",
        f"Dots are models, lines their 95 % interval over {prompts} prompts. "
        "Intervals that overlap widely do not tell models apart.",
        charts.intervals(measured, results),
        key=key,
    )
    rows = [
        {"Model": str(result["model"]), "Prompts": result.get("prompts")}
        | {label: _cell(result["metrics"], name) for name, label in LABELS.items() if name in result["metrics"]}
        for result in results
    ]
    st.dataframe(rows, hide_index=True, alt=f"Results on {split}", key=f"table-{key}")
