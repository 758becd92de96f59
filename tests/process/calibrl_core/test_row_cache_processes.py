"""Several processes that load the same file at the same time: one converts it, and all have its rows."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import Example, FileData
from calibrl_core.data.stored_rows import RowWriter
from tests.support.waiting import LIMIT_SECONDS

PROCESSES, ROWS = 2, 2000


def load(path: str) -> tuple[int, list[str]]:
    """Return how many rows this process converted, and the IDs of all rows."""
    converted = []
    add = RowWriter.add

    def counting(self: RowWriter, example: Example) -> None:
        converted.append(example.id)
        add(self, example)

    RowWriter.add = counting  # type: ignore[method-assign]
    examples = RowCache(Path(path).parent / "rows", 10**9).load(FileData(path=path))
    return len(converted), [example.id for example in examples]


def test_one_process_converts_for_all(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"question": "q", "answer": number}) + "\n" for number in range(ROWS)))
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(load, [str(path)] * PROCESSES, timeout=LIMIT_SECONDS))
    assert sum(converted for converted, _ in found) == ROWS
    assert all(ids == [f"own/{number}" for number in range(1, ROWS + 1)] for _, ids in found)
