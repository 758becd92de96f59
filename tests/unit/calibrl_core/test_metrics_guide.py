"""docs/reference/metrics.md explains every metric, histogram and health rule that there is."""

import json
import re
from pathlib import Path

import pytest

from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics.gradients import compare_gradients
from calibrl_core.health import RULES
from calibrl_core.report import EventFile
from calibrl_core.train import train

GUIDE = (Path(__file__).parents[3] / "docs" / "reference" / "metrics.md").read_text()
NAMES = re.findall(r"`((?:[a-z]+/)+[a-z_0-9<>]+)`", GUIDE)
VERIFIERS = "math|format"
EVENTS = ("metrics", "histogram")


def explained(name: str) -> bool:
    """Whether the guide has a name, or one with a placeholder that stands for it."""
    plain = re.sub("_(low|high)$", "", name)
    placeholders = {"<verifier>": f"(?:{VERIFIERS})", "<n>": "[0-9]+"}
    for known in NAMES:
        pattern = known
        for placeholder, stands_for in placeholders.items():
            pattern = pattern.replace(placeholder, stands_for)
        if re.fullmatch(pattern, plain):
            return True
    return False


def run(folder: Path, **changes) -> tuple[set[str], set[str]]:
    """The names of the metrics and of the histograms that two steps report."""
    given = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "split": "train", "rows": 2},
        "rollout": {"group_size": 2, "max_completion_tokens": 6},
        "prompts_per_step": 2,
        "steps": 2,
        "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 2}, "samples": 2},
    }
    report = EventFile(folder)
    train(TrainConfig.model_validate(given | changes), report, lambda: False)
    report.close()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    metrics = {name for event in events if event["type"] == "metrics" for name in event["values"]}
    return metrics, {event["name"] for event in events if event["type"] == "histogram"}


@pytest.mark.parametrize(
    "algorithm",
    [
        {"type": "calibrl", "mini_batches": 1, "kl_coef": 0.1, "entropy_coef": 0.1},
        {"type": "dapo", "mini_batches": 1, "max_resamples": 1},
        {"type": "sft"},
    ],
    ids=lambda algorithm: algorithm["type"],
)
def test_every_metric_that_a_run_reports_is_explained(tmp_path, algorithm):
    metrics, histograms = run(tmp_path, algorithm=algorithm)
    assert [name for name in sorted(metrics) if not explained(name)] == []
    assert len(metrics) > 20
    assert [name for name in histograms if f"`{name}`" not in GUIDE] == []
    if algorithm["type"] == "calibrl":
        assert {"expert/probe_nll", "expert/probe_gap", "loss/kl", "loss/entropy", "validation/accuracy"} <= metrics


def test_the_comparison_of_gradients_is_explained():
    import torch

    found = compare_gradients([torch.ones(1)], [torch.ones(1)])
    assert len(found) == 4
    assert all(map(explained, found))


def test_every_health_rule_and_what_it_reads_is_explained():
    for rule in RULES:
        assert f"| `{rule.name}` |" in GUIDE
        assert all(map(explained, rule.reads))
        assert all(explained(f"sampled/{name}") for name in rule.reads)


def test_the_check_sees_what_is_missing():
    assert not explained("reward/unheard_of")
    assert explained("reward/math")
    assert explained("validation/pass_at_4_low")
    assert not explained("validation/pass_at_four")
