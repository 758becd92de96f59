"""An attempt's folder, and what it takes over from the attempts before it."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from jobs.files import hard_links
from jobs.lifecycle import KnownCheckpoint
from worker import attempt_folder


def checkpoint(run_dir: Path, step: int) -> Path:
    path = run_dir / "checkpoints" / f"step-{step:06d}"
    (path / "adapter").mkdir(parents=True)
    for name in ("model.safetensors", "adapter/weights", "trainer.json"):
        (path / name).write_text(f"{name} of {step}")
    return path


def known(*paths: Path) -> list[KnownCheckpoint]:
    return [KnownCheckpoint(int(path.name[-6:]), path) for path in paths]


def content(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_attempt_begins_with_links_to_recorded_checkpoints(tmp_path: Path) -> None:
    first, second = tmp_path / "attempt-1", tmp_path / "attempt-2"
    old, new = checkpoint(first, 10), checkpoint(first, 20)
    attempt_folder.begin(second, known(old))
    assert names(second / "checkpoints") == ["step-000010"]  # not the other one: it is not in the database
    taken = second / "checkpoints" / "step-000010"
    assert content(taken) == content(old)
    assert (taken / "model.safetensors").samefile(old / "model.safetensors")
    attempt_folder.begin(second, known(old, new))  # again: as after a crash in between
    assert names(second / "checkpoints") == ["step-000010", "step-000020"]


def test_links_keep_files_removed_by_a_trainer_past_its_lease(tmp_path: Path) -> None:
    first, second = tmp_path / "attempt-1", tmp_path / "attempt-2"
    old = checkpoint(first, 10)
    expected = content(old)
    attempt_folder.keep(first, [old])
    shutil.rmtree(old)
    attempt_folder.begin(second, known(old))
    assert content(second / "checkpoints" / "step-000010") == expected


def test_links_are_kept_to_recorded_checkpoints_only(tmp_path: Path) -> None:
    first = tmp_path / "attempt-1"
    old, new = checkpoint(first, 10), checkpoint(first, 20)
    elsewhere = checkpoint(tmp_path / "attempt-0", 5)
    attempt_folder.keep(first, [old, elsewhere])
    assert names(first / "kept") == ["step-000010"]
    attempt_folder.keep(first, [new])
    assert names(first / "kept") == ["step-000020"]


def test_one_missing_checkpoint_of_two_is_left_out(tmp_path: Path) -> None:
    gone, there = tmp_path / "attempt-1" / "checkpoints" / "step-000010", checkpoint(tmp_path / "attempt-1", 5)
    attempt_folder.begin(tmp_path / "attempt-2", known(there, gone))
    assert names(tmp_path / "attempt-2" / "checkpoints") == ["step-000005"]


def test_no_attempt_begins_where_all_checkpoints_are_missing(tmp_path: Path) -> None:
    gone = tmp_path / "attempt-1" / "checkpoints" / "step-000010"
    with pytest.raises(
        attempt_folder.CheckpointsMissing, match=f"steps 10 are missing: expected in {gone.parent}. Mount"
    ):
        attempt_folder.begin(tmp_path / "attempt-2", known(gone))
    assert names(tmp_path) == []  # a disk that is mounted later finds nothing in its place


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_checkpoint_is_taken_over_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vanishes: bool
) -> None:
    """A full disk is reported; a checkpoint that another process removes meanwhile is left out."""
    old = checkpoint(tmp_path / "attempt-1", 10)

    def fail(source: str, target: str) -> str:
        if source.endswith("model.safetensors"):
            if vanishes:
                shutil.rmtree(old)
            raise OSError(28, "No space left on device")
        return shutil.copy2(source, target)

    monkeypatch.setattr(hard_links, "_link", fail)
    second = tmp_path / "attempt-2"
    if vanishes:
        with pytest.raises(attempt_folder.CheckpointsMissing):
            attempt_folder.begin(second, known(old))
    else:
        with pytest.raises(OSError, match="No space left") as caught:
            attempt_folder.begin(second, known(old))
        assert caught.value.errno == 28
        assert content(old)  # the original is as it was
    assert names(second / "checkpoints") == []


def test_a_thawed_supervisor_removes_nothing_of_a_later_attempt(tmp_path: Path) -> None:
    attempts = [tmp_path / f"attempt-{number}" for number in (2, 9, 10)]
    for attempt in attempts:
        attempt_folder.keep(attempt, [checkpoint(attempt, 10)])
    checkpoint(tmp_path, 5)  # as before attempts had folders
    attempt_folder.remove_earlier_checkpoints(attempts[1])
    assert [names(attempt / "checkpoints") for attempt in attempts] == [[], ["step-000010"], ["step-000010"]]
    assert [names(attempt / "kept") for attempt in attempts] == [[], ["step-000010"], ["step-000010"]]
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_removed_during_listing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chaos suite saw it once in 300 faults: the folder was there, and gone when it was opened."""
    old = checkpoint(tmp_path / "attempt-1", 10)
    scandir = os.scandir

    def removed_meanwhile(path: str | Path) -> object:
        if Path(path) == old:
            monkeypatch.setattr(os, "scandir", scandir)
            shutil.rmtree(old)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removed_meanwhile)
    attempt_folder.keep(tmp_path / "attempt-1", [old])
    assert not old.exists() and names(tmp_path / "attempt-1" / "kept") == []


def test_an_attempt_begins_with_the_answers_of_the_last_one(tmp_path: Path) -> None:
    """A copy: the earlier trainer can still write to its own."""
    for number in (2, 10):  # 10 follows 2
        (tmp_path / f"attempt-{number}").mkdir()
        (tmp_path / f"attempt-{number}" / "answers.jsonl").write_text(f"of {number}\n")
    run_dir = tmp_path / "attempt-12"
    attempt_folder.begin(run_dir, [])
    own = run_dir / "answers.jsonl"
    assert own.read_text() == "of 10\n"
    assert not own.samefile(tmp_path / "attempt-10" / "answers.jsonl")
    own.write_text("own\n")
    attempt_folder.begin(run_dir, [])  # again: as after a crash in between
    assert own.read_text() == "own\n"
    attempt_folder.begin(tmp_path / "attempt-1", [])
    assert not (tmp_path / "attempt-1" / "answers.jsonl").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.ENAMETOOLONG])
def test_a_failed_copy_keeps_the_number_of_its_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number decides if the job starts again."""

    def fail(source: str, target: str) -> str:
        raise OSError(number, os.strerror(number), source)

    monkeypatch.setattr(hard_links, "_link", fail)
    saved = checkpoint(tmp_path / "attempt-1", 10)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        hard_links.link_tree(saved, tmp_path)
    assert caught.value.errno == number
