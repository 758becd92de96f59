"""Models of the hub on this machine, from a fake hub on a local port."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import save

from calibrl_core.config import EvaluateConfig
from jobs.files import hub_models
from jobs.files.allowed_sources import bounds
from jobs.files.hub import HubConnection, HubRefusal, HubUnavailable
from jobs.files.hub_models import HubSnapshot
from jobs.planning import model_shapes
from jobs.settings import get_settings
from tests.support.fake_hub import FakeHub, serving_hub

MODEL = "Qwen/tiny"
# 64 x 16 embeddings and one layer of 16 x 16: 1,280 parameters
WEIGHTS = save(
    {
        "model.embed_tokens.weight": np.ones((64, 16), np.float32),
        "model.layers.0.mlp.up_proj.weight": np.ones((16, 16), np.float32),
    }
)
FILES = {
    "config.json": json.dumps({"model_type": "qwen2", "max_position_embeddings": 32}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "adapter_config.json": b'{"base_model_name_or_path": "other/model"}',
}
KEPT = ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeHub]]:
    """Return a function that serves a model and lets the settings name this hub."""
    monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(hub_models, "PAUSE_SECONDS", 0)
    open_hubs: list[Any] = []

    def start(files: dict[str, bytes] = FILES, **settings: Any) -> FakeHub:
        open_hubs.append(serving_hub(MODEL, files, **settings))
        hub: FakeHub = open_hubs[-1].__enter__()
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        get_settings.cache_clear()
        return hub

    yield start
    for hub in open_hubs:
        hub.__exit__(None, None, None)
    get_settings.cache_clear()


def fetch(hub: FakeHub, project: str = "default") -> tuple[Path, list[str]]:
    snapshot, notes = HubSnapshot(MODEL, hub.commit, project), list[str]()
    for _ in hub_models.fetch_to_machine(snapshot, notes.append):
        pass
    return snapshot.path, notes


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_files_that_a_trainer_reads_are_downloaded(serve: Callable[..., FakeHub]) -> None:
    hub = serve()
    folder, notes = fetch(hub)
    assert content(folder) == {name: FILES[name] for name in KEPT}
    assert folder.parts[-3:] == ("Qwen", "tiny", hub.commit) and not any(one.is_symlink() for one in folder.iterdir())
    assert len(notes) == 1 and notes[0].startswith(f"downloads {MODEL} at {hub.commit[:12]}")
    count = len(hub.asked)
    assert fetch(hub) == (folder, []) and len(hub.asked) == count  # the second time nothing is asked


def test_a_download_that_is_cut_off_continues(serve: Callable[..., FakeHub]) -> None:
    hub = serve(cut={"model.safetensors": [1000, 500]})
    folder, _ = fetch(hub)
    assert content(folder)["model.safetensors"] == WEIGHTS
    assert hub.ranges("model.safetensors") == [None, "bytes=1000-", "bytes=1500-"]


def test_a_worker_that_ends_leaves_a_download_to_continue(serve: Callable[..., FakeHub]) -> None:
    hub = serve(cut={"model.safetensors": [1000] + [0] * hub_models.TRIES})
    with pytest.raises(HubUnavailable, match="cannot be used"):
        fetch(hub)
    asked = len(hub.ranges("model.safetensors"))
    assert asked == 1 + hub_models.TRIES - 1  # the first brought bytes, and counts as a failure too
    hub.cut.clear()
    folder, notes = fetch(hub)
    assert content(folder)["model.safetensors"] == WEIGHTS and len(notes) == 1
    assert hub.ranges("model.safetensors")[asked:] == ["bytes=1000-"]


def test_damaged_content_is_not_kept(serve: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve()
    real = HubConnection.commit

    def other_digest(self: HubConnection, *asked: Any) -> Any:
        found = real(self, *asked)
        hub.files = {**FILES, "model.safetensors": b"x" * len(WEIGHTS)}
        return found

    monkeypatch.setattr(HubConnection, "commit", other_digest)
    with pytest.raises(HubUnavailable, match=r"model\.safetensors was received with other content"):
        fetch(hub)
    partial = HubSnapshot(MODEL, hub.commit, "default").path.with_name(f"{hub.commit}.partial")
    assert sorted(content(partial)) == ["config.json", "tokenizer.json"]


def test_one_process_downloads_a_model_at_a_time(
    serve: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve()
    snapshot = HubSnapshot(MODEL, hub.commit, "default")
    snapshot.path.parent.mkdir(parents=True)
    monkeypatch.setattr(hub_models, "POLL_SECONDS", 0)
    lock = FileLock(snapshot.path.with_name(f"{hub.commit}.lock"), is_singleton=False)
    with lock:
        waiting = hub_models.fetch_to_machine(snapshot, print)
        next(waiting)
        monkeypatch.setattr(hub_models, "STALLED_SECONDS", 0)
        with pytest.raises(HubUnavailable, match="Another process downloads Qwen/tiny and received nothing"):
            list(waiting)
        assert hub.asked == []
    assert fetch(hub)[0].is_dir()


def test_a_full_disk_is_known_before_the_download(
    serve: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve()
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"Qwen/tiny needs [\d,]+ bytes in .*, where 100 are free"):
        fetch(hub)
    assert hub.ranges("model.safetensors") == []


def test_a_gated_model_says_how_to_set_the_token(
    serve: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve(tokens={"hf_secret"})
    with pytest.raises(HubRefusal, match=r"HTTP 401.*project 'default' has none; set it in CALIBRL_HUB_TOKENS"):
        hub_models.resolve(MODEL, None, "default")
    monkeypatch.setenv("CALIBRL_HUB_TOKENS", '{"default": "hf_other", "vision": "hf_secret"}')
    get_settings.cache_clear()
    with pytest.raises(HubRefusal, match=r"HTTP 403.*has one in CALIBRL_HUB_TOKENS; accept the model's terms"):
        hub_models.resolve(MODEL, None, "default")
    assert hub_models.resolve(MODEL, None, "vision") == hub.commit
    assert fetch(hub, "vision")[0].is_dir()
    stored = [headers for path, headers in hub.asked if path.startswith("/store/")]
    assert stored and not any("authorization" in headers for headers in stored)
    assert "hf_" not in repr(get_settings())


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [("Qwen/none", None, "Qwen/none does not exist on the hub"), (MODEL, "v9", "has no such revision")],
)
def test_what_the_hub_does_not_have_is_refused(
    serve: Callable[..., FakeHub], model: str, revision: str | None, message: str
) -> None:
    serve()
    with pytest.raises(HubRefusal, match=message):
        hub_models.resolve(model, revision, "default")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": None}, "has no config.json"),
        ({"model.safetensors": None}, "has no file model.safetensors: use a model with weights as safetensors"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'}, "which is not a file of its"),
        ({"model.safetensors.index.json": b'{"weight_map": 1}'}, "index.json cannot be read: weight_map"),
        ({"config.json": b'{"x": "/etc/passwd"}'}, "config.json names /etc/passwd, which is outside of"),
        ({"config.json": b'{"x": "../../y"}'}, r"config.json names \.\./\.\./y, which is outside of"),
        ({"config.json": b" " * (2**24 + 1)}, "config.json has more than 16,777,216 bytes"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(
    serve: Callable[..., FakeHub], files: dict[str, bytes | None], message: str
) -> None:
    serve({name: text for name, text in (FILES | files).items() if text is not None})
    with pytest.raises(HubRefusal, match=message):
        hub_models.resolve(MODEL, None, "default")


def test_a_downloaded_config_gets_the_checks_of_a_folder(serve: Callable[..., FakeHub]) -> None:
    hub = serve({**FILES, "tokenizer_config.json": b'{"vocab_file": "/etc/passwd"}'})
    folder, _ = fetch(hub)
    config = EvaluateConfig.model_validate({"models": [{"path": str(folder)}], "data": [{"builtin": "digits"}]})
    (problem,) = bounds().check(config)  # as the trainer checks it before it reads any file
    assert "tokenizer_config.json names /etc/passwd, which is outside of" in problem


def test_shapes_are_known_from_the_headers_alone(
    serve: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_models, "FIRST_BYTES", 64)  # shorter than the header: a second request brings all of it
    hub = serve()
    commit = hub_models.resolve(MODEL, "main", "default")
    hub_models.read_headers(MODEL, commit, "default")
    assert sum(hub_models.sizes(MODEL, commit).values()) == sum(len(FILES[name]) for name in KEPT)
    shape = model_shapes.of_folder(hub_models.outline_path(MODEL, commit))
    assert (shape.parameters, shape.layers, shape.hidden, shape.longest) == (1280, 1, 16, 32)
    header = 8 + int.from_bytes(WEIGHTS[:8], "little")
    assert hub.ranges("model.safetensors") == ["bytes=0-63", f"bytes=0-{header - 1}"]
    hub_models.read_headers(MODEL, commit, "default")
    assert len(hub.ranges("model.safetensors")) == 2


def test_an_absent_hub_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path))
    get_settings.cache_clear()
    with pytest.raises(HubUnavailable, match=r"The hub http://127.0.0.1:9 cannot be used: ConnectError"):
        hub_models.resolve(MODEL, None, "default")
    get_settings.cache_clear()
