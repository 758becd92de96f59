"""Storage in a folder and in memory, in place of S3: a file is complete or absent."""

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest

from jobs.errors import StorageUnavailable
from jobs.files.storage import Storage

KEY = "datasets/one.jsonl"


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    yield Storage("memory://test/deep" if request.param == "memory" else str(tmp_path / "kept"))
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def names(storage: Storage) -> list[str]:
    return sorted(storage._fs.find(storage._root))


def test_a_file_is_kept_read_and_deleted(storage: Storage, file: Path) -> None:
    storage.put(KEY, file)
    with storage.open(KEY) as found:
        found.seek(3)
        assert found.read() == b"tent"
    file.write_bytes(b"other")
    storage.put(KEY, file)
    with storage.open(KEY) as found:
        assert found.read() == b"other"
    assert len(names(storage)) == 1
    storage.delete(KEY)
    storage.delete(KEY)
    assert names(storage) == []
    with pytest.raises(FileNotFoundError):
        storage.open(KEY)


def test_a_failed_write_leaves_no_file(storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr(storage._fs, "mv", broken)
    with pytest.raises(StorageUnavailable, match="broken"):
        storage.put(KEY, file)
    assert names(storage) == []


def test_a_copy_is_whole_and_right_or_not_there(storage: Storage, file: Path, tmp_path: Path) -> None:
    storage.put(KEY, file)
    target = tmp_path / "cache" / "copy"
    assert list(storage.fetch(KEY, target, sha256(b"content").hexdigest())) == [None]
    assert target.read_bytes() == b"content"
    target.unlink()
    with pytest.raises(StorageUnavailable, match="damaged"):
        list(storage.fetch(KEY, target, "0" * 64))
    with contextlib.closing(storage.fetch(KEY, target, "0" * 64)) as half:
        next(half)
    with pytest.raises(FileNotFoundError):
        list(storage.fetch("datasets/none", target, "0" * 64))
    assert list(target.parent.iterdir()) == []


def test_an_unusable_storage_location_is_reported(tmp_path: Path, file: Path) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be used"):
        Storage("nothing://there")
    with pytest.raises(StorageUnavailable, match="cannot be used"):
        Storage(str(file)).put(KEY, file)


def test_a_missing_bucket_is_not_reported_as_a_missing_file(
    storage: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_file(*_: object) -> None:
        raise FileNotFoundError("The specified bucket does not exist")  # as S3's file system has it

    monkeypatch.setattr(storage._fs, "put_file", put_file)
    with pytest.raises(StorageUnavailable, match="bucket does not exist"):
        storage.put(KEY, file)
