"""The benchmark of data files: its file has the size asked for, and can be read."""

from pathlib import Path
from typing import Any

from bench import data
from bench.data import Figures


def test_the_file_is_read_with_its_images(tmp_path: Path, monkeypatch: Any) -> None:
    for name, value in (("SIDE", 64), ("ROW_GROUP", 3), ("READ", 5)):
        monkeypatch.setattr(data, name, value)
    path = tmp_path / "images.parquet"
    rows = data.write_file(path, 10_000)
    assert rows % 3 == 0 and path.stat().st_size > 10_000
    figures = data.read_ours(path, rows)
    assert min(figures.rows, figures.images, figures.convert_seconds) > 0
    assert [file.suffix for file in (tmp_path / "rows").iterdir()] == [".arrow"]


def test_the_table_compares_both_readers() -> None:
    table = data.measures(10**9, Figures(4, 0.5, 1000, 50, 10**8), Figures(2, 1, 2000, 25, 2 * 10**8))
    assert [(row.ours, row.peer, row.unit) for row in table] == [
        (4, 2, "s"),
        (0.5, 1, "s"),
        (1000, 500, "us"),
        (20, 40, "ms"),
        (100, 200, "MB"),
        (100, 1000, "MB"),
    ]
