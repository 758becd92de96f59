"""Model folders, GGUF files and data that lead out of the folders that a run can read from."""

import json
import os
from pathlib import Path

import pytest

from calibrl_core.config import EvaluateConfig
from calibrl_core.run.checkpoint import STATE_FILE
from calibrl_core.run.path_bounds import PathBounds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed root with a model; beside it a secret, and what the service keeps within the root."""
    model = tmp_path / "allowed" / "model"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "allowed" / "runs" / "job").mkdir(parents=True)
    (tmp_path / "allowed" / "runs" / "job" / "model.safetensors").write_bytes(b"of another project")
    return tmp_path / "allowed"


def bounds(root: Path) -> PathBounds:
    return PathBounds((root,), (root / "runs",))


def problem(root: Path) -> str:
    return bounds(root).model_problem(root / "model") or ""


def test_a_folder_of_plain_files_may_be_read(root: Path) -> None:
    assert problem(root) == ""


def test_a_folder_that_is_not_readable_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "model" / "private").mkdir()
    listed = os.listdir

    def forbidding(folder: Path) -> list[str]:  # root reads a folder whatever its mode
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "listdir", forbidding)
    assert problem(root) == f"{root / 'model' / 'private'} can't be read: Permission denied"


@pytest.mark.parametrize("name", ["chat_template.jinja", "adapter/adapter_model.safetensors"])
@pytest.mark.parametrize("target", ["secret", "allowed/runs/job/model.safetensors"])
def test_a_link_out_of_the_root_is_refused_at_any_depth(root: Path, name: str, target: str) -> None:
    link = root / "model" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(root.parent / target)
    assert f"{link} leads out of {root}" in problem(root)


def test_a_folder_behind_a_link_is_searched_too(root: Path) -> None:
    (root / "other").mkdir()
    (root / "other" / "x.jinja").symlink_to(root.parent / "secret")
    (root / "model" / "templates").symlink_to(root / "other")
    (root / "model" / "again").symlink_to(root / "model")  # a circle ends
    assert "x.jinja leads out of" in problem(root)


def test_a_snapshot_of_the_hub_cache_may_link_to_its_blobs(root: Path) -> None:
    repository = root / "hub" / "models--a--b"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (repository / "blobs" / f"{name}-digest").write_text("{}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"{name}-digest")
    assert bounds(root).model_problem(snapshot) is None
    assert "leads out of" in (PathBounds((snapshot,)).model_problem(snapshot) or "")


def test_a_path_that_is_not_a_file_is_refused(root: Path) -> None:
    os.mkfifo(root / "model" / "vocab.txt")  # a process that opens it waits without limit
    assert "neither a file nor a folder" in problem(root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors.index.json", {"weight_map": {"a": "../runs/job/model.safetensors"}}),
        ("adapter_config.json", {"base_model_name_or_path": "{root}/runs/job"}),
        ("tokenizer_config.json", {"vocab_file": "{root}/../secret"}),
    ],
)
def test_a_config_file_that_names_a_path_outside_is_refused(root: Path, name: str, content: object) -> None:
    (root / "model" / name).write_text(json.dumps(content).replace("{root}", str(root)))
    assert f"{name} names" in problem(root)


def test_a_note_on_a_models_origin_is_not_a_path(root: Path) -> None:
    note = {"_name_or_path": str(root.parent / "secret"), "special": "a/b", "absent": "/nowhere/at/all"}
    (root / "model" / "config.json").write_text(json.dumps(note))
    assert problem(root) == ""


def test_a_checkpoint_may_name_the_model_that_its_run_began_with(root: Path) -> None:
    checkpoint = root / "runs" / "job"
    (checkpoint / STATE_FILE).write_text(json.dumps({"settings": {"model": {"path": str(root / "model")}}}))
    assert bounds(root).own_problem(checkpoint) is None


def test_files_beside_a_gguf_file_are_checked(root: Path) -> None:
    file = root / "model.gguf"
    file.write_bytes(b"GGUF")
    assert bounds(root).model_problem(file) is None
    (root / "tokenizer_config.json").symlink_to(root.parent / "secret")
    assert "tokenizer_config.json leads out" in (bounds(root).model_problem(file) or "")


def test_paths_of_the_services_own_files_are_refused_within_a_root(root: Path) -> None:
    refused = bounds(root).problem(root / "runs" / "job" / "model.safetensors")
    assert refused is not None and "model.from_job" in refused
    assert bounds(root).problem(root / "model") is None
    assert "outside the allowed folders" in (bounds(root).problem(root.parent / "secret") or "")


def test_a_trainer_checks_all_paths_of_its_config_again(root: Path) -> None:
    rows, checkpoint = root / "rows.jsonl", root / "runs" / "job"
    rows.write_text("")
    names = {"models": [{"path": str(root / "model")}, {"path": str(checkpoint)}], "data": [{"path": str(rows)}]}
    config = EvaluateConfig.model_validate(names)
    assert bounds(root).check(config) == []  # the service chose the checkpoint: as a user's path it was refused
    (checkpoint / "chat_template.jinja").symlink_to(root.parent / "secret")
    (root / "model" / "chat_template.jinja").symlink_to(root.parent / "secret")
    rows.unlink()
    rows.symlink_to(root.parent / "secret")
    assert len(bounds(root).check(config)) == 3


@pytest.mark.parametrize("target", ["secret", "allowed/runs/job/model.safetensors"])
def test_a_shard_that_leads_out_of_the_root_is_refused(root: Path, target: str) -> None:
    shards = root / "shards"
    shards.mkdir()
    (shards / "a.jsonl").write_text("{}\n")
    assert bounds(root).data_problem(shards) is None
    (shards / "b.jsonl").symlink_to(root.parent / target)
    assert f"jobs cannot read {shards / 'b.jsonl'}" in (bounds(root).data_problem(shards) or "")
    config = EvaluateConfig.model_validate({"models": [{"builtin": "tiny-vlm"}], "data": [{"path": str(shards)}]})
    assert len(bounds(root).check(config)) == 1
