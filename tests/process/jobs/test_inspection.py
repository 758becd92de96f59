"""Effects of a hostile file on the process that inspects it, and the check of its index."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from calibrl_core.data.schema import Columns, FileData
from jobs.errors import FieldError, Invalid
from jobs.files import inspection


def write(path: Path, rows: int, expert: pyarrow.Array, **options: object) -> Path:
    table = pyarrow.table({"question": ["q"] * rows, "answer": ["a"] * rows, "expert": expert})
    parquet.write_table(table, path, compression="zstd", write_statistics=False, **options)
    return path


def repeated(text: str, rows: int) -> pyarrow.Array:
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [text])


def test_a_file_that_takes_all_memory_ends_only_the_process_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row uses one long value of a dictionary: the file and the sizes in its index are small."""
    path = write(tmp_path / "x.parquet", 64, repeated("e" * 60_000_000, 64), dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(inspection, "MEMORY_BYTES", 3 * 2**29)
    try:
        found = inspection.inspect(path, "mine", Columns())
        (fault,) = found.faults  # the reader could still say so itself
    except Invalid as refused:
        (fault,) = refused.errors
    assert fault.field == "file"
    assert "more than 900 s or" in fault.message or "cannot be read" in fault.message
    assert list(tmp_path.iterdir()) == [path]


def test_a_parquet_file_with_a_too_large_index_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", 10, pyarrow.array(["e" * 1000] * 10), use_dictionary=False, row_group_size=5)
    monkeypatch.setattr(inspection, "read_examples", lambda *_: pytest.fail("it was read"))
    for limit in ("MAX_ROW_GROUP_BYTES", "MAX_UNCOMPRESSED_BYTES", "MAX_ROWS"):
        with monkeypatch.context() as patch:
            patch.setattr(inspection, limit, 5)
            found = inspection.look_into(FileData(path=str(path)))
            assert (found.rows, found.fault_count, found.faults[0].field) == (0, 1, "file")


def test_rows_and_unpacked_bytes_are_counted_while_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n' * 100)
    monkeypatch.setattr(inspection, "MAX_ROWS", 20)
    found = inspection.look_into(FileData(path=str(path)))
    assert (found.rows, found.fault_count) == (21, 1)
    monkeypatch.undo()
    monkeypatch.setattr(inspection, "MAX_UNCOMPRESSED_BYTES", 9)
    assert inspection.look_into(FileData(path=str(path))).rows == 5


def test_only_the_first_faults_are_kept_and_long_texts_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = ({"question": "q", "answer": "a", "images": ["name" + "!" * number]} for number in range(1, 71))
    different = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(f'{{"question": "{"q" * 5000}", "answer": "a"}}\n' + different + "no\n" * 30)
    found = inspection.inspect(path, "mine", Columns())
    assert (found.fault_count, len(found.faults), found.unlisted, found.rows) == (100, 50, 50, 101)
    assert found.faults[0] == FieldError("rows.2", found.faults[0].message)
    assert found.preview[0]["question"] == "q" * 2000 + " …"
