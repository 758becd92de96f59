"""Data files: rows and images per second, and memory, beside the library `datasets` and Pillow in a plain loop.

    python -m bench.data [--gigabytes 1] [--folder DIR]

It writes a Parquet file of JPEG images, converts and reads it with both, each in a process of its own, and removes it.
The disk needs four times the size of the file.
"""

from __future__ import annotations

import argparse
import io
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image
from rich.console import Console

from bench import report

SIDE = 768  # pixels of each side of an image; noise, so that a JPEG of it has about half a megabyte
DIFFERENT = 32  # images; the file repeats them
ROW_GROUP = 100  # rows
TEXT = "How many points are there? " * 20
DECODED = 600  # images that are read in a random order
READ = 20_000  # rows that are read without their images
Reader = Callable[[Any, Sequence[int]], None]  # reads some rows of what was loaded
WATCHED = 0.02  # seconds between two looks at the memory


@dataclass(frozen=True)
class Figures:
    """Time and memory of one reader."""

    convert_seconds: float  # the first time
    open_seconds: float  # the second time
    rows: float  # per second, texts only, in a random order
    images: float  # per second, decoded, in a random order
    memory: int  # bytes, the most above the start that no file backs


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the file")
    parser.add_argument("--folder", type=Path, help="where to put it; default: the folder of temporary files")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    if warning := report.load_warning():
        console.print(warning)
    with TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "images.parquet"
        rows = write_file(path, int(options.gigabytes * 1e9))
        figures = [alone(read, path, rows) for read in (read_ours, read_datasets)]
        size = path.stat().st_size
    found = measures(size, *figures)
    name = f"data-{options.gigabytes:g}gb"
    console.print(f"{report.circumstances(('pyarrow', 'datasets', 'pillow'))}; {rows} rows, {size / 1e9:.2f} GB")
    console.print(report.table(found), markup=False)
    console.print(f"{report.write(name, found)}", markup=False)


def measures(size: int, ours: Figures, peer: Figures) -> list[report.ReportRow]:
    """Return the rows of the table. size: of the file in bytes."""
    return [
        report.no_goal("First load, all images checked (datasets checks none)", *seconds(ours, peer, "convert"), "s"),
        report.no_goal("Later load", *seconds(ours, peer, "open"), "s"),
        report.no_goal("Texts of a row, in random order", 1e6 / ours.rows, 1e6 / peer.rows, "us"),
        report.no_goal("A decoded image, in random order", 1e3 / ours.images, 1e3 / peer.images, "ms"),
        report.no_goal("Memory that no file backs, at most", ours.memory / 1e6, peer.memory / 1e6, "MB"),
        report.no_goal("The same, compared with the file", ours.memory / 1e6, size / 1e6, "MB"),
    ]


def seconds(ours: Figures, peer: Figures, what: str) -> tuple[float, float]:
    """Return the seconds of both."""
    name = f"{what}_seconds"
    return getattr(ours, name), getattr(peer, name)


def write_file(path: Path, size: int) -> int:
    """Write rows of one image and a text until the file has `size` bytes; return their number."""
    images = [_jpeg(seed) for seed in range(DIFFERENT)]
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    text = pyarrow.string()
    schema = pyarrow.schema([("question", text), ("answer", text), ("images", pyarrow.list_(image))])
    rows = written = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        while written < size:
            group = []
            for number in range(rows, rows + ROW_GROUP):
                data = images[number % DIFFERENT]
                group.append({"question": f"<image>{TEXT}{number}", "answer": "7", "images": [{"bytes": data}]})
                written += len(data)
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
            rows += ROW_GROUP
    return rows


def _jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = random.Random(seed).randbytes(3 * SIDE * SIDE)
    Image.frombytes("RGB", (SIDE, SIDE), pixels).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def alone(read: Callable[[Path, int], Figures], path: Path, rows: int) -> Figures:
    """Return the figures of a reader in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(read, path, rows).result(timeout=7200)


def read_ours(path: Path, rows: int) -> Figures:
    """Read the file as a trainer does."""
    from calibrl_core import data
    from calibrl_core.data.image_decoding import open_image
    from calibrl_core.data.row_cache import RowCache
    from calibrl_core.data.schema import FileData

    cache = RowCache(path.with_name("rows"), 10**12)
    source = FileData(path=str(path))

    def texts(examples: Any, places: Sequence[int]) -> None:
        for place in places:
            examples[place].question  # noqa: B018

    def pictures(examples: Any, places: Sequence[int]) -> None:
        for place in places:
            for image in examples[place].images:
                open_image(image)

    return _figures(lambda: data.load(source, cache=cache), texts, pictures, rows)


def read_datasets(path: Path, rows: int) -> Figures:
    """Read the file with `datasets`, and its images with Pillow."""
    import datasets

    text, image = datasets.Value("string"), datasets.List(datasets.Image(decode=False))
    features = datasets.Features({"question": text, "answer": text, "images": image})
    named = {"data_files": str(path), "cache_dir": str(path.with_name("datasets")), "features": features}

    def texts(found: Any, places: Sequence[int]) -> None:
        column = found.select_columns(["question"])
        for place in places:
            column[place]["question"]

    def pictures(found: Any, places: Sequence[int]) -> None:
        for place in places:
            for one in found[place]["images"]:
                Image.open(io.BytesIO(one["bytes"])).convert("RGB")

    return _figures(lambda: datasets.load_dataset("parquet", split="train", **named), texts, pictures, rows)


def _figures(load: Callable[[], Any], texts: Reader, pictures: Reader, rows: int) -> Figures:
    places = random.Random(0)
    with watched() as peak:
        convert, _ = timed(load)
        opened, examples = timed(load)
        chosen = [places.randrange(rows) for _ in range(READ)]
        shown = places.sample(range(rows), min(DECODED, rows))
        read, _ = timed(lambda: texts(examples, chosen))
        decoded, _ = timed(lambda: pictures(examples, shown))
    return Figures(convert, opened, len(chosen) / read, len(shown) / decoded, peak[0])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of some work, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@contextmanager
def watched() -> Iterator[list[int]]:
    """Yield a list with the largest growth of this process's anonymous memory, in bytes."""
    start, peak, ended = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(WATCHED):
            peak[0] = max(peak[0], anonymous_bytes() - start)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        ended.set()
        watching.join()


def anonymous_bytes() -> int:
    """Return the memory of this process that is neither mapped from files nor shared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
