"""First rows of datasets of a hub on a local port, read by the process with limits."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from calibrl_core.data.files import survey
from calibrl_core.data.schema import HubData
from jobs.files import hub_rows
from jobs.files.hub_rows import HubSample, read_samples, sample
from jobs.settings import get_settings
from tests.support.fake_hub import FakeHub, serving_hub

pytestmark = pytest.mark.slow  # each starts a process that loads `datasets`


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving_hub("a/model", {}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path / "service"))
        monkeypatch.setattr(hub_rows, "_known", {})
        get_settings.cache_clear()
        yield hub
        if hub.held is not None:
            hub.held.set()
    get_settings.cache_clear()


def table(*rows: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(file, "PNG")
    return file.getvalue()


def read(**settings: Any) -> HubSample:
    source = HubData(**settings)
    read_samples([source])
    found = sample(source)
    assert found is not None
    return found


def test_the_first_rows_are_read_and_the_rest_is_left(hub: FakeHub) -> None:
    hub.datasets["a/sums"] = {"train.parquet": table(*({"question": f"{i}?", "answer": str(i)} for i in range(600)))}
    found = read(hub="a/sums")
    assert found.file is not None and not found.whole
    facts = survey(found.file)
    assert (facts.rows, facts.problems, facts.row_format) == (512, (), "the plain format")
    assert found.file.label == "a/sums (train)"
    asked = len(hub.asked)
    few = read(hub="a/sums", rows=10)  # the same rows, used otherwise
    assert few.file is not None and few.whole and survey(few.file).rows == 10
    assert len(hub.asked) == asked


def test_images_beside_the_rows_are_read_and_no_others(hub: FakeHub, tmp_path: Path) -> None:
    row = {"file_name": "1.png", "question": "How many?", "answer": "3"}
    hub.datasets["a/pictures"] = {"metadata.jsonl": json.dumps(row).encode(), "1.png": picture()}
    found = read(hub="a/pictures")
    assert found.file is not None and found.whole
    facts = survey(found.file)
    assert (facts.problems, facts.rows, facts.with_images) == ((), 1, 1)
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture())
    stolen = {"question": "q", "answer": "1", "image": {"bytes": None, "path": str(secret)}}
    hub.datasets["a/thief"] = {"train.parquet": table(stolen)}
    found = read(hub="a/thief")
    assert found.file is not None
    (problem,) = survey(found.file).problems
    assert problem.startswith("a/thief (train), row 1: image")


def test_without_the_hub_a_cached_copy_is_read(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.datasets["a/sums"] = {"train.parquet": table({"question": "1 + 1?", "answer": "2"})}
    load = "import datasets; datasets.load_dataset('a/sums', split='train')"
    subprocess.run([sys.executable, "-c", load], check=True, capture_output=True, env=os.environ | {"USE_TORCH": "0"})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    get_settings.cache_clear()
    found = read(hub="a/sums")
    assert found.file is not None and found.whole and survey(found.file).rows == 1
    fault = read(hub="a/other").fault
    assert fault is not None and "the Hugging Face hub is not reachable, and the cache has no copy" in fault


def test_a_hub_that_does_not_answer_is_given_up(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.datasets["a/sums"], hub.held = {"train.parquet": table({"question": "q", "answer": "1"})}, threading.Event()
    monkeypatch.setattr(hub_rows, "READ_SECONDS", 6)
    assert read(hub="a/sums") == HubSample(None, False, "a/sums (train) was not read within 6 s")


def test_faults_of_the_dataset_are_reported(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.datasets["a/empty"] = {"README.md": b"---\n---\n"}
    fault = read(hub="a/empty").fault
    assert fault is not None and fault.startswith("a/empty (train) cannot be loaded: ")
    monkeypatch.setenv("CALIBRL_ALLOWED_HUB", "b/*")
    get_settings.cache_clear()
    assert read(hub="a/other").fault == "jobs cannot load a/other: allowed are b/* (set by CALIBRL_ALLOWED_HUB)"


def test_a_repository_that_names_files_of_this_machine_is_refused(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_rows, "READ_SECONDS", 300)  # a read that takes too long would be refused, too
    secret = tmp_path / "storage" / "other.jsonl"
    secret.parent.mkdir()
    secret.write_text(json.dumps({"question": "1 + 1?", "answer": "a secret"}) + "\n")
    card = '---\nconfigs:\n- config_name: default\n  data_files: "{}*.jsonl"\n---\n'
    hub.datasets["a/own"] = {"README.md": card.format("").encode(), "other.jsonl": secret.read_bytes()}
    hub.datasets["a/thief"] = {"README.md": card.format(f"{secret.parent}/").encode()}
    own, found = read(hub="a/own"), read(hub="a/thief")
    assert own.fault is None and own.file is not None  # the path is the only difference
    assert found.file is None
    assert found.fault is not None and "a secret" not in found.fault
