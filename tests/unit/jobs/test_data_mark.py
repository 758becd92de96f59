"""The mark of a data folder that several machines write."""

from pathlib import Path

import pytest

from jobs import data_mark
from jobs.data_mark import FILE, DataMark
from jobs.settings import Settings


def test_a_mark_that_another_machine_writes_meanwhile_is_no_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = iter(range(10, 100, 10))

    def present() -> DataMark:
        found = DataMark(database="a", position=next(positions))
        other = DataMark(database="a", position=found.position + 1)
        (tmp_path / FILE).write_text(other.model_dump_json())  # of a machine that asked the database a moment later
        return found

    monkeypatch.setattr(data_mark, "_present", present)
    (tmp_path / FILE).write_text(DataMark(database="a", position=1).model_dump_json())
    assert data_mark.check(Settings(data_dir=tmp_path)) is None
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).write_text(DataMark(database="a", position=99).model_dump_json())
    assert "the database is older" in str(data_mark.check(Settings(data_dir=tmp_path)))
