"""The registry describes every metric and histogram that runs report, and every metric that health rules read."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.algorithms.registry import BUILT_IN
from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics.gradients import compare_gradients
from calibrl_core.health import RULES
from calibrl_core.metrics import FAMILIES, HISTOGRAMS, describe, find, look_up
from calibrl_core.metrics.installed import installed_descriptions
from calibrl_core.report import EventFile
from calibrl_core.train import train
from tests.support.packages import install

VERIFIERS = ("math", "format")
METRICS = [metric for family in FAMILIES for metric in family.metrics]
ALGORITHMS = [settings.model_fields["type"].default for settings in BUILT_IN]
OPTIONS: dict[str, dict[str, Any]] = {
    "calibrl": {"mini_batches": 1, "kl_coef": 0.1, "entropy_coef": 0.1},
    "dapo": {"mini_batches": 1, "max_resamples": 1},
    "sft": {},
}


def unknown(names: set[str]) -> list[str]:
    """The reported names that no entry describes; `reward/<verifier>` describes those of `VERIFIERS` only."""
    entries = {name: find(name, FAMILIES) for name in sorted(names)}
    return [
        name
        for name, entry in entries.items()
        if entry is None or (entry.name == "reward/<verifier>" and name.split("/")[1] not in VERIFIERS)
    ]


def run(folder: Path, algorithm: str) -> tuple[set[str], set[str]]:
    """The names of the metrics and of the histograms that two steps report."""
    spec = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train", "rows": 2},
        "rollout": {"group_size": 2, "max_completion_tokens": 6},
        "prompts_per_step": 2,
        "steps": 2,
        "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 2}, "samples": 2},
        "algorithm": {"type": algorithm, **OPTIONS.get(algorithm, {"mini_batches": 1})},
    }
    report = EventFile(folder)
    train(TrainConfig.model_validate(spec), report, lambda: False)
    report.close()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    metrics = {name for event in events if event["type"] == "metrics" for name in event["values"]}
    return metrics, {event["name"] for event in events if event["type"] == "histogram"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_metric_that_a_run_reports_is_in_the_registry(tmp_path: Path, algorithm: str) -> None:
    metrics, histograms = run(tmp_path, algorithm)
    assert unknown(metrics) == []
    assert len(metrics) > 20
    assert histograms <= {histogram.name for histogram in HISTOGRAMS}
    if algorithm == "calibrl":
        assert {"expert/probe_nll", "expert/probe_gap", "loss/kl", "loss/entropy", "validation/accuracy"} <= metrics


def test_the_comparison_of_gradients_is_in_the_registry() -> None:
    import torch

    found = compare_gradients([torch.ones(1)], [torch.ones(1)])
    assert len(found) == 4
    assert unknown(set(found)) == []


def test_every_metric_that_a_health_rule_reads_is_in_the_registry() -> None:
    for rule in RULES:
        assert unknown(set(rule.reads)) == []


def test_a_metric_that_is_not_in_the_registry_is_found() -> None:
    assert unknown({"reward/mean", "reward/math", "reward/unheard_of"}) == ["reward/unheard_of"]
    assert unknown({"validation/pass_at_4_low", "validation/pass_at_four"}) == ["validation/pass_at_four"]
    assert unknown({"eval/test/greedy_accuracy_high", "loss/total_low"}) == ["loss/total_low"]
    with pytest.raises(KeyError, match="add a Metric to a family"):
        describe("loss/new")


def test_a_full_name_precedes_a_placeholder() -> None:
    assert describe("reward/mean").name == "reward/mean"
    assert describe("reward/math").name == "reward/<verifier>"
    assert describe("eval/test/pass_at_8").name == "eval/<split>/pass_at_<n>"


def test_descriptions_of_other_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "from calibrl_core.metrics import Metric\nMETRICS = (Metric('{}', 'odd unit', 'Odd.'),)\n"
    points = {"odd": "odd_metrics:f", "wrong": "wrong_metrics:f"}
    files = {"odd_metrics.py": line.format("odd/mean"), "wrong_metrics.py": line.format("reward/mean")}
    install(tmp_path, files, {"name": "org-odd", "version": "1", "entry-points": {"calibrl.metrics": points}})
    monkeypatch.syspath_prepend(tmp_path)
    installed_descriptions.cache_clear()
    try:
        found = look_up("odd/mean")
        assert found is not None
        assert found.unit == "odd unit"
        assert look_up("odd/other") is None
        assert [family.title for family in installed_descriptions()] == ["odd/"]
    finally:
        installed_descriptions.cache_clear()


def test_names_are_unique_and_texts_are_sentences() -> None:
    for entries in (METRICS, HISTOGRAMS):
        assert len({metric.name for metric in entries}) == len(entries)
    for metric in (*METRICS, *HISTOGRAMS):
        assert metric.unit
        assert metric.meaning.endswith(".")
        assert metric.how_to_read.endswith(".") or not metric.how_to_read
