"""The notices of a plan about the rows of files and uploaded datasets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from calibrl.schemas import KnownData, TrainSpec
from calibrl_core.data.schema import Columns
from jobs.files import datasets
from jobs.models import Dataset
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
    assert (notice.field, notice.message.partition(":")[0]) == ("data.0", "only the trainer reads these rows")
    assert [*data_warnings(spec([{"hub": "a/b"}]), {})] == []


def test_a_job_reads_a_dataset_in_the_format_of_its_upload_or_its_own(tmp_path: Path) -> None:
    dataset = uploaded(tmp_path, {"answer": "1"})
    dataset.read_as = "plain"
    read = [datasets.source(dataset, KnownData(dataset=dataset.id, format=form)).format for form in ("auto", "verl")]
    assert read == ["plain", "verl"]
