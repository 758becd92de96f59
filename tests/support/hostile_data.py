"""Hostile data files, made from a seed: broken images, rows and containers. None may crash or overload a reader.

    python -m tests.support.hostile_data SEED COUNT

reads COUNT files as a submission, a plan and a data report of the API read them, and prints what that cost as JSON;
then as a trainer does.
"""

import base64
import gzip
import io
import json
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet as parquet
from PIL import Image

from calibrl_core.data import load
from calibrl_core.data.image_decoding import image_size, open_image
from calibrl_core.data.report import ReportSettings, check_data
from calibrl_core.data.schema import DataError, FileData
from calibrl_core.verifiers.math import MathReward
from jobs.files.reports import LIMITS
from jobs.specs.file_surveys import first_rows

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI")
SIDE = 60_000  # pixels that a lying header names
LARGE = 0.03  # share of the files of these kinds that need much time or memory
ROW = {"question": "<image>?", "answer": "1", "expert": "<answer>1</answer>"}


class Hostile(NamedTuple):
    """A file: its name, whose end names its kind, and its content; or a folder with several files of that content."""

    name: str
    content: bytes
    shards: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write it into a folder, and return its path."""
        path = folder / self.name
        if self.shards:
            path.mkdir()
        for file in [path / shard for shard in self.shards] or [path]:
            file.write_bytes(self.content)
        return path


class Cost(NamedTuple):
    """Costs of reading hostile files. `faults`: the name of each file that was not read or refused, with the error."""

    files: int
    faults: list[str]
    seconds: float  # CPU time of the slowest read of one
    slowest: str
    megabytes: float  # growth of the largest resident memory


def hostile_files(seed: int, count: int) -> Iterator[Hostile]:
    """Yield `count` files. The same seed gives the same files."""
    chance = random.Random(seed)
    images = {form: _image(form) for form in FORMATS}
    kinds: tuple[Callable[[random.Random, dict[str, bytes]], Hostile], ...] = (
        _mutated_image, _mutated_image, _lying_image, _wrong_types, _mutated_line, _nested, _mutated_parquet,
        _parquet_of_images, _compressed, _many, _long, _listed, _folder,
    )  # fmt: skip
    for number in range(count):
        made = kinds[number % len(kinds)](chance, images)
        yield made._replace(name=f"{number}-{made.name}")


def submit_all(seed: int, count: int, folder: Path) -> Cost:
    """Read hostile files as a submission, or a plan, and a data report of the API do."""
    return _read_all(seed, count, folder, (_plan, _report))


def train_on_all(seed: int, count: int, folder: Path) -> Cost:
    """Read hostile files as a trainer does."""
    return _read_all(seed, count, folder, (_train,))


def _read_all(seed: int, count: int, folder: Path, reads: tuple[Callable[[Path], Any], ...]) -> Cost:
    faults, slowest, seconds = list[str](), "", 0.0
    for file in hostile_files(seed, count):
        path = file.write(folder)
        for read in reads:
            started = time.thread_time()
            faults += _fault(path, read)
            spent = time.thread_time() - started
            if spent > seconds:
                slowest, seconds = f"{file.name} {read.__name__}", spent
        shutil.rmtree(path) if file.shards else path.unlink()
    return Cost(count, faults, seconds, slowest, 0.0)


def _plan(path: Path) -> None:
    first_rows(FileData(path=str(path)), answers=True)


def _report(path: Path) -> None:
    check_data(FileData(path=str(path)), ReportSettings((MathReward(),), limits=LIMITS)).report.model_dump_json()


def _fault(path: Path, read: Callable[[Path], Any]) -> list[str]:
    try:
        read(path)
    except DataError as problem:
        str(problem).encode()  # it can be written
    except Exception:
        return [f"{path.name}: {traceback.format_exc(limit=-4)}"]
    return []


def _train(path: Path) -> None:
    for example in load(FileData(path=str(path))):
        for image in dict.fromkeys(example.images):
            shown = open_image(image)
            assert (shown.mode, shown.size) == ("RGB", image_size(image))


def _image(form: str) -> bytes:
    buffer, tags = io.BytesIO(), Image.Exif()
    tags[274] = 6
    options = {"exif": tags} if form in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") else {}
    pixels = random.Random(0).randbytes(24 * 16 * 3)
    Image.frombytes("RGB", (24, 16), pixels).save(buffer, form, **options)
    return buffer.getvalue()


def _mutated(content: bytes, chance: random.Random) -> bytes:
    """Return content that was cut, overwritten, repeated or given other bytes in one to four places."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place, length = chance.randrange(len(found) or 1), chance.choice((1, 2, 4, 16, 64))
        match chance.randrange(6):
            case 0:
                del found[place:]
            case 1:
                found[place : place + length] = chance.randbytes(length)
            case 2:
                found[place : place + length] = b"\xff" * length
            case 3:
                found[place : place + length] = b"\0" * length
            case 4:
                found[place:place] = found[place : place + length] * chance.choice((1, 3, 100))
            case _:
                del found[place : place + length]
    return bytes(found)


def _row(image: bytes, **cells: Any) -> bytes:
    return json.dumps(ROW | {"images": base64.b64encode(image).decode()} | cells).encode() + b"\n"


def _mutated_image(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    form = chance.choice(FORMATS)
    return Hostile(f"{form}.jsonl", _row(_mutated(images[form], chance)) + _row(images[form]))


def _lying_image(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    """Return an image whose header names far more pixels than it has."""
    side = chance.choice((7_000, SIDE, 2**31 - 1, 2**32 - 1))
    short = min(side, 65_535)
    body = b"IHDR" + struct.pack(
        ">IIBBBBB", side, side, chance.choice((1, 8, 16)), chance.choice((0, 2, 3, 6)), 0, 0, 0
    )
    pixels = zlib.compress(b"\0" * chance.choice((10, 1_000_000)))
    chunks = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + struct.pack(">I", len(pixels))
    lies = {
        "PNG": b"\x89PNG\r\n\x1a\n" + chunks + b"IDAT" + pixels + struct.pack(">I", zlib.crc32(b"IDAT" + pixels)),
        "GIF": b"GIF89a" + struct.pack("<HH", short, short) + images["GIF"][10:],
        "BMP": images["BMP"][:18] + struct.pack("<II", side, side) + images["BMP"][26:],
        "PPM": b"P6 %d %d 255\n" % (side, side) + b"\0" * 99,
        "QOI": b"qoif" + struct.pack(">II", side, side) + images["QOI"][12:],
        "WEBP": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2,
        "JPEG": images["JPEG"].replace(struct.pack(">HH", 16, 24), struct.pack(">HH", short, short)),
        "JPEG2000": images["JPEG2000"].replace(struct.pack(">II", 16, 24), struct.pack(">II", side, side)),
        "TIFF": images["TIFF"].replace(struct.pack("<HHIHH", 256, 3, 1, 24, 0), struct.pack("<HHII", 256, 4, 1, side)),
    }
    form = chance.choice(sorted(lies))
    return Hostile(f"huge-{form}-{side}.jsonl", _row(lies[form]))


def _value(chance: random.Random, depth: int = 0) -> Any:
    plain = (
        None, True, 0, -1, 10**30, 1.5, 1e308, "", " ", "x" * 5_000, "\ud83d", "\0", "<image>", "<image 2>", "\\boxed{",
        "data:image/png;base64,", "../../etc/passwd", "/dev/zero", "http://a.org/a.png", "[[[", '{"a": 1', "NaN",
    )  # fmt: skip
    match chance.randrange(4) if depth < 4 else 0:
        case 1:
            return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
        case 2:
            keys = (
                "bytes",
                "path",
                "role",
                "content",
                "type",
                "text",
                "image_url",
                "ground_truth",
                "from",
                "value",
                "\ud800",
            )
            return {chance.choice(keys): _value(chance, depth + 1) for _ in range(chance.randrange(4))}
        case _:
            return chance.choice(plain)


def _wrong_types(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    columns = (
        "question", "answer", "images", "image", "expert", "prompt", "messages", "reward_model", "data_source",
        "options", "choices", "solution", "problem", "conversations", "hint", "target", "pass_ratio", "image_1",
        "extra_info",
    )  # fmt: skip
    rows = [{name: _value(chance) for name in chance.sample(columns, chance.randint(1, 8))} for _ in range(3)]
    full = [ROW | row for row in rows[:2]]
    return Hostile("types.jsonl", "".join(json.dumps(row) + "\n" for row in [*full, *rows]).encode())


def _mutated_line(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    rows = [ROW, {"messages": [{"role": "user", "content": "q"}], "answer": "1"}, ROW | {"images": None}]
    text = "".join(json.dumps(chance.choice(rows)) + "\n" for _ in range(3)).encode()
    return Hostile(f"line.{chance.choice(('jsonl', 'json', 'JSONL'))}", _mutated(text, chance))


def _nested(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    depth = chance.choice((10, 1_000, 20_000, 400_000))
    opened = chance.choice((b"[", b'{"a":'))
    inner = opened * depth + (b"1" if chance.random() < 0.5 else b"")
    closed = {b"[": b"]"}.get(opened, b"}") * depth if chance.random() < 0.5 else b""
    column = chance.choice((b"images", b"prompt", b"answer", b"other"))
    return Hostile("nested.jsonl", b'{"question": "q", "answer": "1", "%s": %s}\n' % (column, inner + closed))


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _mutated_parquet(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    content = _parquet([ROW | {"images": [{"bytes": images["PNG"], "path": None}]}] * 3)
    return Hostile("mutated.parquet", _mutated(content, chance))


def _parquet_of_images(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    broken = [_mutated(images[chance.choice(FORMATS)], chance) for _ in range(3)]
    return Hostile("images.parquet", _parquet([ROW | {"images": [{"bytes": one, "path": "a.png"}]} for one in broken]))


def _listed(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    """Return a JSON list of rows, whole, broken, or within an object or a list."""
    rows = [json.loads(_row(images["PNG"])), {name: _value(chance) for name in ("question", "answer", "images")}]
    whole = json.dumps(chance.choice((rows, {"data": rows}, [rows], {"1": rows[0]}, [], [rows[0], 1, None]))).encode()
    return Hostile("listed.json", whole if chance.random() < 0.3 else _mutated(whole, chance))


def _folder(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    """Return a folder of shards, of which some lie about their kind."""
    names = chance.sample(("a.jsonl", "b.json", "c.parquet", "d.jsonl.gz", "e.jsonl.zst", "f.txt", ".g.jsonl"), 3)
    content = _parquet([ROW | {"images": None}] * 2) if chance.random() < 0.3 else _row(images["PNG"]) * 2
    return Hostile("folder", content if chance.random() < 0.5 else _mutated(content, chance), tuple(names))


def _zstd(content: bytes) -> bytes:
    packed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return packed


def _compressed(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    """Return a compressed file that is broken, or that unpacks to much more than it is."""
    pack, ending = chance.choice(((lambda text: gzip.compress(text, 1, mtime=0), "gz"), (_zstd, "zst")))
    content = pack(_row(images["PNG"]) * chance.choice((1, 50)))
    if chance.random() < LARGE:
        content = pack(b"\0" * 60_000_000)
    elif chance.random() < 2 * LARGE:
        content = pack(b"[" + b"{}," * 50_000)
    else:
        content = _mutated(content, chance)
    return Hostile(f"packed.jsonl.{ending}", content)


def _many(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    """Return a row with very many values, columns, images or tags."""
    many = chance.choice((20_000, 400_000)) if chance.random() < LARGE else chance.choice((100, 2_000))
    cells: Any = chance.choice(
        (
            {"images": ["a.png"] * min(many, 20_000)},
            {"question": "<image>" * many},
            {"question": "<image 1>" * many},
            {"question": "<img " * many},
            {"answer": "1," * many},
            {"options": ["x"] * many},
            {f"column {number}": number for number in range(min(many, 100_000))},
        )
    )
    return Hostile("many.jsonl", _row(images["PNG"], **cells))


def _long(chance: random.Random, images: dict[str, bytes]) -> Hostile:
    """Return a row with a cell of up to 30 MB."""
    size = 20_000_000 if chance.random() < LARGE else 3_000
    part = chance.choice(("word ", "<", "<img ", "#### ", "{", "\\boxed{1} ", "A. ", "A ", " ", "9", "9\n"))
    column = chance.choice(("question", "answer", "expert", "images", "options", "note"))
    return Hostile("long.jsonl", _row(images["PNG"], **{column: "A" + part * (size // len(part)) + "x"}))


def _resident(name: str) -> float:
    """Return VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Run the command of the module."""
    seed, count = map(int, sys.argv[1:])
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        submit_all(0, 20, Path(folder))  # load all libraries
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins at the present size
        before = _resident("VmRSS")
        cost = submit_all(seed, count, Path(folder))
        cost = cost._replace(megabytes=_resident("VmHWM") - before)
        trained = train_on_all(seed, count, Path(folder))
    print(json.dumps(cost._replace(faults=cost.faults + trained.faults)._asdict()))


if __name__ == "__main__":
    main()
