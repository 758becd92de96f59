"""Hub names, without a network: the same call loads a local folder, and a sentence says what can't be reached."""

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import TypeAdapter, ValidationError

from calibrl.schemas import job_spec_adapter
from calibrl_core import data
from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import Columns, DataError, DataSource, HubData
from jobs.specs import checks
from jobs.specs.references import References


@pytest.fixture
def folder(tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset's files as the hub has them: features of images, described in the Parquet file's own metadata."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path)
    image = {"bytes": png, "path": None}
    rows = {"problem": ["Find x.", "Find y."], "images": [[image], [image, image]], "answer": ["3", "4"]}
    features = datasets.Features(
        {
            "problem": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
            "answer": datasets.Value("string"),
        }
    )
    (tmp_path / "set").mkdir()
    table = datasets.Dataset.from_dict(rows, features=features).data.table
    pyarrow.parquet.write_table(table, tmp_path / "set/train-00000-of-00001.parquet")
    return tmp_path / "set"


def local(folder: Path, **settings: Any) -> HubData:
    """Return a source of this folder in place of a dataset on the hub."""
    defaults = {"split": "train", "revision": None, "columns": Columns(), "rows": None}
    return HubData.model_construct(hub=str(folder), **{**defaults, **settings})


def test_a_dataset_is_loaded_with_its_images_as_they_are_stored(folder: Path, png: bytes) -> None:
    first, second = data.load(local(folder))
    assert (first.question, first.answer, first.images) == ("Find x.", "3", (png,))
    assert second.images == (png, png)
    assert first.id == "set-train/1"
    assert len(data.load(local(folder, rows=1))) == 1
    named = data.load(local(folder, columns=Columns(question="problem")))
    assert [example.question for example in named] == ["Find x.", "Find y."]


def test_a_dataset_is_converted_once_per_version(folder: Path, tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "rows", 10**9)
    assert list(cache.load(local(folder))) == data.load(local(folder))
    (first,) = cache.folder.iterdir()
    inode = first.stat().st_ino
    cache.load(local(folder))
    assert [file.stat().st_ino for file in cache.folder.iterdir()] == [inode]
    table = pyarrow.parquet.read_table(folder / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(table.slice(1), folder / "train-00000-of-00001.parquet")
    assert [example.question for example in cache.load(local(folder))] == ["Find y."]


def test_errors_name_the_dataset(folder: Path) -> None:
    with pytest.raises(DataError, match=r"set \(nothing\) cannot be loaded: .*'train'"):
        data.load(local(folder, split="nothing"))
    with pytest.raises(DataError, match=r"set \(train\) has no column 'frage'.*; it has 'answer', 'images', 'problem'"):
        data.load(local(folder, columns=Columns(question="frage")))


def test_an_image_path_must_be_inside_the_librarys_own_folder(folder: Path, tmp_path: Path, png: bytes) -> None:
    outside = tmp_path.parent / "outside.png"
    outside.write_bytes(png)
    table = pyarrow.Table.from_pylist([{"question": "q", "answer": "1", "image": str(outside)}])
    (folder / "train-00000-of-00001.parquet").unlink()
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    with pytest.raises(DataError, match=r"row 1: image .*outside\.png' is neither a readable file"):
        data.load(local(folder))


def test_a_missing_network_is_reported_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's offline switch simulates a missing network; without the switch, it first tries six times."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        data.load(HubData(hub="nobody/nothing", split="test"))
    assert str(caught.value) == (
        "nobody/nothing (test) cannot be loaded: the Hugging Face hub is not reachable, and the cache has no copy. "
        "Download it on a machine with network access and name its .parquet file: {path: ...}"
    )


def test_only_names_of_datasets_are_accepted() -> None:
    adapter = TypeAdapter(DataSource)
    source = adapter.validate_python({"hub": "hiyouga/geometry3k", "split": "test", "revision": "main"})
    assert isinstance(source, HubData) and source.name == "geometry3k-test"
    for wrong in ("/etc", "../secret/x", "csv", "a/b/c", "a b/c", "a/..\n"):
        with pytest.raises(ValidationError, match="hub"):
            adapter.validate_python({"hub": wrong})
    with pytest.raises(ValidationError, match="split"):
        adapter.validate_python({"hub": "a/b", "split": "train[:10%]"})
    with pytest.raises(ValidationError, match="trust_remote_code"):
        adapter.validate_python({"hub": "a/b", "trust_remote_code": True})


def test_a_submission_does_not_wait_for_the_hub() -> None:
    spec = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": {"hub": "a/b"}, "steps": 1}
    assert checks.file_problems(References.of(job_spec_adapter.validate_python(spec))) == []
