"""The check of a loaded model is done once, as long as nothing that decides it changes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.run import model_check
from calibrl_core.run.model_check import checked
from calibrl_core.train import train
from tests.support.training import config, of_type

TINY = BuiltinModel(builtin="tiny-vlm")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the check itself; the list has the number of examples of each check."""
    counts: list[int] = []

    def check(policy: Policy, examples: list[Example]) -> float:
        counts.append(len(examples))
        return 2e-6

    monkeypatch.setattr(model_check, "check_model", check)
    return counts


def test_a_known_result_is_used_again(
    policy: Policy, examples: list[Example], calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = EventFile(tmp_path / "run", tmp_path / "cache")
    first = checked(policy, TINY, examples, report, ALONE)
    assert (first.difference, first.limit, calls) == (2e-6, 1e-3, [1])
    assert checked(policy, TINY, examples, EventFile(tmp_path / "other", tmp_path / "cache"), ALONE) == first
    assert calls == [1]
    text = dataclasses.replace(examples[0], images=())
    for count, (source, given) in enumerate(
        [(BuiltinModel(builtin="tiny-vlm", seed=1), examples), (TINY, [*examples, text])], 2
    ):
        checked(policy, source, given, report, ALONE)
        assert len(calls) == count
    monkeypatch.setattr(model_check, "version", lambda name: "0.0")
    checked(policy, TINY, examples, report, ALONE)
    assert len(calls) == 4


def test_without_a_folder_or_a_readable_result_it_is_done(
    policy: Policy, examples: list[Example], calls: list[int], tmp_path: Path
) -> None:
    for _ in range(2):
        checked(policy, TINY, examples, EventFile(tmp_path / "run"), ALONE)
    assert len(calls) == 2
    report = EventFile(tmp_path / "run", tmp_path / "cache")
    checked(policy, TINY, examples, report, ALONE)
    (file,) = (tmp_path / "cache" / "checks").iterdir()
    file.write_text("{half")
    checked(policy, TINY, examples, report, ALONE)
    assert len(calls) == 4
    checked(policy, TINY, examples, report, ALONE)
    assert len(calls) == 4
    (tmp_path / "full").write_text("not a folder")
    checked(policy, TINY, examples, EventFile(tmp_path / "run", tmp_path / "full"), ALONE)  # it cannot be kept
    assert len(calls) == 5


def test_each_file_of_a_model_counts(policy: Policy, examples: list[Example], calls: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    report, source = EventFile(tmp_path / "run", tmp_path / "cache"), PathModel(path=str(folder))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        before = len(calls)
        (folder / name).write_text("{}")
        for _ in range(2):
            checked(policy, source, examples, report, ALONE)
        assert len(calls) == before + 1, name
    folder = folder.rename(tmp_path / "moved")
    checked(policy, PathModel(path=str(folder)), examples, report, ALONE)
    assert len(calls) == 3


def test_a_later_run_reports_the_first_result(tmp_path: Path) -> None:
    settings: Any = config(algorithm={"type": "sft"}, steps=1)
    for name in ("first", "second"):
        train(settings, EventFile(tmp_path / name, tmp_path / "cache"), lambda: False)
    (first,), (second,) = (of_type(tmp_path / name, "checked") for name in ("first", "second"))
    assert 0 < first["difference"] < 1e-5 and first["limit"] == 1e-3
    assert (first["difference"], first["measured_at"]) == (second["difference"], second["measured_at"])
