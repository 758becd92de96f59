"""The notices of a plan about the rows of files and uploaded datasets."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from calibrl.schemas import EvaluateSpec, KnownData, TrainSpec
from calibrl_core.data.schema import Columns, FileData
from jobs.files import datasets, hub_rows
from jobs.files.hub_rows import HubSample
from jobs.models import Dataset
from jobs.planning import data_warnings as warnings_module
from jobs.planning.data_warnings import data_warnings
from jobs.settings import get_settings


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path / "service"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def spec(data: Any, **changes: Any) -> TrainSpec:
    fixed = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "steps": 1}
    asked = {"algorithm": {"type": "grpo"}, "rewards": [{"type": "numeric"}]}
    return TrainSpec.model_validate({**fixed, **asked, "data": data, **changes})


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"question": f"{place}?", **row}) + "\n" for place, row in enumerate(rows)))
    return path


def uploaded(folder: Path, *rows: dict[str, Any]) -> Dataset:
    id = uuid4()
    write(folder / f"service/storage/datasets/{id}.jsonl", *rows)
    columns = Columns().model_dump()
    return Dataset(id=id, name="own", format="jsonl", sha256="0" * 64, columns=columns, read_as="auto", hub=None)


def test_rows_whose_answers_cannot_be_earned_are_listed(tmp_path: Path) -> None:
    answers = [{"answer": answer} for answer in ("blue", "2", "red", "blue")]
    file = write(tmp_path / "own.jsonl", *answers)
    (notice,) = data_warnings(spec([{"path": str(file)}], unearnable="drop"), {})
    assert notice.field == "data.0"
    assert notice.message.startswith("3 of 4 rows (1, 3, 4) are dropped: no completion can earn the answer 'blue': ")
    dataset = uploaded(tmp_path, *answers)
    (notice,) = data_warnings(spec({"dataset": str(dataset.id)}), {dataset.id: dataset})
    assert notice.field == "data"
    assert notice.message.startswith("the trainer refuses 3 of 4 rows (1, 3, 4): no completion can earn")
    assert notice.message.endswith("or set unearnable: drop")


def test_rows_without_a_pass_ratio_are_counted(tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = [{"answer": "1", "pass_ratio": 0.5}, {"answer": "2"}]
    file, by_ratio = write(tmp_path / "own.jsonl", *answers), {"curriculum": "pass_ratio"}
    dropping = spec({"path": str(file)}, prompts={"too_long": "drop"}, **by_ratio)
    (notice,) = data_warnings(dropping, {})
    assert notice.message == (
        "the trainer refuses 1 of 2 rows, unless it drops them: they have no pass_ratio: fill this column, or choose "
        "another curriculum"
    )
    dataset = uploaded(tmp_path, *answers)
    (notice,) = data_warnings(spec({"dataset": str(dataset.id)}, **by_ratio), {dataset.id: dataset})
    assert notice.message.startswith("the trainer refuses 1 of 2 rows: they have no pass_ratio")
    (notice,) = data_warnings(spec([{"hub": "a/b"}], **by_ratio), {})
    assert notice.field == "data.0" and notice.message.endswith("each needs a pass_ratio, or choose another curriculum")


def test_rows_that_only_the_trainer_reads_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (notice,) = data_warnings(spec([{"hub": "a/b"}]), {})
    assert notice.message == "the rows are on the hub and were not read here; the trainer reads them"
    away = HubSample(None, False, "a/b (train) was not read within 20 s")
    monkeypatch.setattr(hub_rows, "sample", lambda source: away)
    (notice,) = data_warnings(spec([{"hub": "a/b"}]), {})
    reason = "(a/b (train) was not read within 20 s)"
    assert notice.message == f"the rows are on the hub and were not read here {reason}; the trainer reads them"
    dataset = uploaded(tmp_path, {"answer": "1"})
    (tmp_path / f"service/storage/datasets/{dataset.id}.jsonl").unlink()  # as in a remote storage
    (notice,) = data_warnings(spec({"dataset": str(dataset.id)}), {dataset.id: dataset})
    assert notice.message.startswith("the file is in the storage and was not read: make its data report")


def test_rows_of_the_hub_that_the_trainer_refuses_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FileData(path=str(write(tmp_path / "rows.jsonl", {"answer": "1"}, {"answer": ""})), title="a/b (train)")
    monkeypatch.setattr(hub_rows, "sample", lambda source: HubSample(file, False, None))
    for hub_spec in (spec({"hub": "a/b"}), evaluation({"hub": "a/b"})):
        notice = next(iter(data_warnings(hub_spec, {})))
        assert notice.message.startswith("the trainer refuses the data: a/b (train), row 2: ")


def evaluation(data: Any) -> EvaluateSpec:
    asked = {"kind": "evaluate", "name": "x", "models": [{"builtin": "tiny-vlm"}], "data": [data]}
    return EvaluateSpec.model_validate(asked | {"rewards": [{"type": "numeric"}]})


def picture(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_images_of_the_validation_data_are_counted(tmp_path: Path) -> None:
    red, blue = ({"images": [picture(colour)], "answer": "1"} for colour in ("red", "blue"))
    file = write(tmp_path / "own.jsonl", red, {**red, "question": "And?"}, blue)
    held_out = write(tmp_path / "held.jsonl", red)
    asked = spec({"path": str(file)}, validation={"data": {"path": str(held_out)}})
    messages = [notice.message for notice in data_warnings(asked, {})]
    assert [message.partition(",")[0] for message in messages] == [
        "1 of 3 prompts are in the validation data too",
        "1 of 3 prompts have an image of the validation data with another question: split the data by image",
    ]


def test_experts_that_would_be_cut_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: dict[str, int] = {"<answer>1</answer>": 7, "<answer>2</answer>": 8, "<answer>3</answer>": 9}
    monkeypatch.setattr(
        warnings_module, "expert_tokens", lambda tokenizer, experts: tuple(map(counted.__getitem__, experts))
    )
    rows = ({"answer": text[8], "expert": text} for text in counted)
    file = write(tmp_path / "own.jsonl", *rows)
    asked = {"algorithm": {"type": "calibrl"}, "rollout": {"max_completion_tokens": 7}}
    assert not list(data_warnings(spec({"path": str(file)}, **asked), {}))
    (notice,) = data_warnings(spec({"path": str(file)}, **asked), {}, tmp_path / "tokenizer.json")
    assert notice.message.startswith("2 of 3 experts (rows 2, 3) have more than 7 tokens and are cut")


def test_a_job_reads_a_dataset_in_the_format_of_its_upload_or_its_own(tmp_path: Path) -> None:
    dataset = uploaded(tmp_path, {"answer": "1"})
    dataset.read_as = "plain"
    read = [datasets.source(dataset, KnownData(dataset=dataset.id, format=form)).format for form in ("auto", "verl")]
    assert read == ["plain", "verl"]
