"""Rows of files, converted once and read where they are used: the same examples as from memory, in bounded memory."""

import base64
import errno
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet
import pytest

from calibrl_core import data
from calibrl_core.data import row_cache
from calibrl_core.data.order import DataOrder
from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import DataError, Example, FileData, Turn
from calibrl_core.data.source_facts import SourceFacts
from calibrl_core.data.stored_rows import RowWriter
from calibrl_core.data.views import Selected
from calibrl_core.evaluation.stored_answers import prompt_digest
from calibrl_core.run.identity import data_digest
from tests.support import pictures

LIMIT = 10**9


def write(path: Path, rows: list[dict[str, Any]]) -> FileData:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path))


@pytest.fixture
def source(tmp_path: Path) -> FileData:
    """Five rows: an image file, two images within the row, text only, an expert, a chat."""
    (tmp_path / "a.png").write_bytes(pictures.png(size=4))
    encoded = [base64.b64encode(pictures.png(size=size)).decode() for size in (5, 6)]
    return write(
        tmp_path / "own.jsonl",
        [
            {"question": "<image>?", "answer": "1", "images": "a.png", "pass_ratio": 0.1},
            {"question": "q", "answer": 2, "images": encoded, "pass_ratio": 0.9},
            {"question": "Greek α, 🙂", "answer": "3", "pass_ratio": 0.5},
            {"question": "q", "answer": "4", "expert": "e", "pass_ratio": 0.5},
            {"question": "q", "answer": "5", "images": [], "pass_ratio": 0.7},
        ],
    )


@pytest.fixture
def cache(tmp_path: Path) -> RowCache:
    return RowCache(tmp_path / "cache", LIMIT)


def test_stored_rows_are_those_of_the_file(source: FileData, cache: RowCache) -> None:
    known, facts = SourceFacts(), SourceFacts()
    stored, plain = cache.load(source, known), data.load(source, facts=facts)
    assert known == facts and facts.form is not None and "images" in facts.used
    assert len(stored) == 5 and list(stored) == plain == [stored[place] for place in range(5)]
    assert stored[-1] == plain[-1] and list(stored[1:4:2]) == plain[1:4:2]
    assert stored[0].images == (pictures.png(size=4),)
    assert list(stored[1].images) == [pictures.png(size=5), pictures.png(size=6)] and stored[2].images == ()
    with pytest.raises(IndexError):
        stored[5]


def test_digests_and_order_are_those_of_rows_in_memory(source: FileData, cache: RowCache) -> None:
    stored, plain = cache.load(source), data.load(source)
    assert data_digest(stored) == data_digest(plain)
    assert list(map(prompt_digest, stored)) == list(map(prompt_digest, plain))
    for curriculum in ("none", "pass_ratio", "measured"):
        first, second = (DataOrder(rows, 7, 2, curriculum=curriculum) for rows in (stored, plain))
        for _ in range(6):
            assert first.next_step() == second.next_step()
            first.observe({"own/2": 0.25})
            second.observe({"own/2": 0.25})
            assert json.dumps(first.state()) == json.dumps(second.state())


def test_the_digest_of_data_is_that_of_earlier_versions() -> None:
    example = Example("a/1", "q", "1", (b"abc", bytes(5000)), "e", (Turn("system", "s"),), "d")
    texts = ['[3, "616263", "616263"]', f'[5000, "{"00" * 4096}", "{"00" * 4096}"]']
    ends = [sha256(text.encode()).hexdigest() for text in texts]
    row = json.dumps([["q", "1", "e", "d"], [["system", "s"]], ends])
    assert data_digest([example]) == sha256(sha256(row.encode()).hexdigest().encode()).hexdigest()


def test_an_example_reaches_another_process_without_its_images(tmp_path: Path, cache: RowCache) -> None:
    image = pictures.noise(200)  # too large for the columns that rewards see
    source = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "1", "images": base64.b64encode(image).decode()}])
    (example,) = cache.load(source)
    sent = pickle.dumps(example)
    assert len(image) > 20 * len(sent) and pickle.loads(sent) == example
    assert pickle.loads(sent).images[0] == image and hash(pickle.loads(sent)) == hash(example)


def test_a_file_is_converted_once_and_again_when_it_changes(
    source: FileData, cache: RowCache, monkeypatch: Any
) -> None:
    added: list[int] = []
    monkeypatch.setattr(RowWriter, "add", watched(RowWriter.add, added))
    cache.load(source)
    cache.load(source)
    assert len(added) == 5
    rows = Path(source.path).read_text().splitlines()
    Path(source.path).write_text("\n".join(rows[:2]))
    assert len(cache.load(source)) == 2 and len(added) == 7
    assert len(cache.load(source.model_copy(update={"rows": 1}))) == 1 and len(added) == 8


def test_a_changed_image_file_is_read_again_by_the_next_run(source: FileData, cache: RowCache, tmp_path: Path) -> None:
    before = cache.load(source)[0]
    (tmp_path / "a.png").write_bytes(pictures.png(size=7))
    with pytest.raises(
        DataError, match=f"^own/1: {tmp_path}/a.png has changed since the run read its rows; restore it"
    ):
        before.images[0]
    after = cache.load(source)[0]
    assert after.images == (pictures.png(size=7),) and after.images.facts[0].width == 7  # type: ignore[attr-defined]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"^own/1: .*a\.png cannot be read: No such file"):
        after.images[0]
    with pytest.raises(DataError, match=r"own\.jsonl, row 1: "):
        cache.load(source)


def test_image_files_are_not_copied(tmp_path: Path, cache: RowCache) -> None:
    (tmp_path / "a.png").write_bytes(pictures.noise(400))
    cache.load(write(tmp_path / "a.jsonl", [{"question": "q", "answer": "1", "image": "a.png"}] * 3))
    (file,) = cache.folder.iterdir()
    assert file.stat().st_size < 10_000


def test_invalid_rows_are_named_and_nothing_is_left(tmp_path: Path, cache: RowCache) -> None:
    good, bad = {"question": "q", "answer": "1"}, {"question": "q"}
    source = write(tmp_path / "a.jsonl", [good, *[bad] * 25, good])
    with pytest.raises(DataError) as stored:
        cache.load(source)
    with pytest.raises(DataError) as plain:
        data.load(source)
    assert str(stored.value) == str(plain.value)
    assert "a.jsonl, row 21:" in str(stored.value) and str(stored.value).endswith(" (and 5 more)")
    assert not [file for file in cache.folder.iterdir() if file.suffix != ".failure"]
    with pytest.raises(DataError, match="has no rows"):
        cache.load(write(tmp_path / "empty.jsonl", []))


def test_an_interrupted_conversion_leaves_nothing_half(source: FileData, cache: RowCache, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RowWriter, "close", lambda self, notes: (_ for _ in ()).throw(KeyboardInterrupt))
        cache.load(source)
    assert not list(cache.folder.iterdir())
    (cache.folder / f"{row_cache._key(source, answers=True)}.partial").write_bytes(
        b"half"
    )  # as a killed process leaves it
    assert len(cache.load(source)) == 5 and [file.suffix for file in cache.folder.iterdir()] == [".arrow"]


def test_processes_wait_for_the_one_that_converts(source: FileData, cache: RowCache, monkeypatch: Any) -> None:
    with other_process(source, cache) as (file, path):
        monkeypatch.setattr("time.sleep", lambda seconds: row_cache._convert(source, file, path, answers=True))
        with monkeypatch.context() as patch:
            patch.setattr(row_cache.RowCache, "_make_room", None)  # only a conversion calls it
            assert len(cache.load(source)) == 5


def test_a_failed_conversion_fails_all_that_wait(source: FileData, cache: RowCache, monkeypatch: Any) -> None:
    Path(source.path).write_text("{}")
    with other_process(source, cache) as (file, path):

        def fail(seconds: float) -> None:
            with pytest.raises(DataError):
                row_cache._convert(source, file, path, answers=True)

        monkeypatch.setattr("time.sleep", fail)
        with pytest.raises(DataError, match=r"own\.jsonl, row 1: ") as caught:
            cache.load(source)
    assert caught.traceback[-1].name == "pause"


def test_the_wait_for_another_process_ends(source: FileData, cache: RowCache, monkeypatch: Any) -> None:
    with other_process(source, cache) as (file, _):
        monkeypatch.setattr("time.sleep", lambda seconds: os.utime(file.fileno(), (0, 0)))
        with pytest.raises(DataError, match="has not gone on for 600 s; end it, or remove this file"):
            cache.load(source)


@contextmanager
def other_process(source: FileData, cache: RowCache) -> Iterator[tuple[BinaryIO, Path]]:
    """Hold the lock as a process that converts the source."""
    path = cache.folder / f"{row_cache._key(source, answers=True)}.arrow"
    path.parent.mkdir()
    with row_cache._written(path) as file:
        assert file is not None
        yield file, path


def test_a_file_system_without_locks_is_written_by_one_process(
    source: FileData, cache: RowCache, monkeypatch: Any
) -> None:
    def unsupported(handle: int, kind: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with other_process(source, cache) as (file, path):
        monkeypatch.setattr("time.sleep", lambda seconds: row_cache._convert(source, file, path, answers=True))
        with monkeypatch.context() as patch:
            patch.setattr(row_cache.RowCache, "_make_room", None)
            assert len(cache.load(source)) == 5
    small = RowCache(cache.folder, 0)
    assert len(small.load(source.model_copy(update={"rows": 2}))) == 2 and path.exists()  # it can be in use


def test_unused_files_are_removed_by_last_use(tmp_path: Path, cache: RowCache) -> None:
    sources = [write(tmp_path / f"{name}.jsonl", [{"question": name, "answer": "1"}]) for name in "abcd"]
    paths = [cache.folder / f"{row_cache._key(source, answers=True)}.arrow" for source in sources]
    used = cache.load(sources[0])
    for source in sources[1:3]:
        cache.load(source)
    for age, path in enumerate(paths[:3]):
        os.utime(path, (age, age))
    (cache.folder / "dead.partial").write_bytes(b"half")
    small = RowCache(cache.folder, sum(path.stat().st_size for path in paths[:2]) + 1000)
    small.load(sources[3])
    assert [path.exists() for path in paths] == [True, False, True, True]  # the first is in use
    assert not (cache.folder / "dead.partial").exists()
    assert used[0].question == "a"


def test_a_full_disk_is_noticed_before_the_conversion(source: FileData, cache: RowCache, monkeypatch: Any) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match=r"own\.jsonl: its rows and images need about 0\.0 GB in .*, which has 0\.0 GB"):
        cache.load(source)


def test_views_are_sequences() -> None:
    rows = [Example(str(place), "q", "1") for place in range(6)]
    view = Selected(rows, [5, 3, 1])
    assert [one.id for one in view] == ["5", "3", "1"] and view[-1].id == "1" and rows[3] in view
    assert [one.id for one in view[1:]] == ["3", "1"] and len(view[3:]) == 0


def test_memory_does_not_grow_with_the_file(tmp_path: Path, cache: RowCache, monkeypatch: Any) -> None:
    image = pictures.noise(600)  # about a megabyte
    converting: list[int] = []
    monkeypatch.setattr(RowWriter, "add", watched(RowWriter.add, converting))
    loaded: list[int] = []
    peaks: list[int] = []
    for megabytes in (20, 200):
        path = tmp_path / f"{megabytes}.parquet"
        with pyarrow.parquet.ParquetWriter(path, pyarrow.schema(COLUMNS), compression="none") as writer:
            for row in range(megabytes):
                one = {"question": str(row), "answer": "1", "images": [image + bytes([row])]}
                writer.write_table(pyarrow.Table.from_pylist([one], schema=pyarrow.schema(COLUMNS)))
        converting.clear()
        stored = cache.load(FileData(path=str(path)))
        assert sum(len(example.images[0]) for example in stored) == megabytes * (len(image) + 1)
        loaded.append(anonymous_bytes())
        peaks.append(max(converting))
    assert loaded[1] - loaded[0] < 8e6
    assert peaks[1] - peaks[0] < 60e6


COLUMNS = [("question", pyarrow.string()), ("answer", pyarrow.string()), ("images", pyarrow.list_(pyarrow.binary()))]


def anonymous_bytes() -> int:
    """Return the memory of this process that is neither mapped from files nor shared."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def watched(add: Any, seen: list[int]) -> Any:
    def watching(self: RowWriter, example: Example) -> None:
        add(self, example)
        seen.append(anonymous_bytes())

    return watching
