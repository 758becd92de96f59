"""Packs rows whose images are files beside them, so that an upload contains the images: JSON rows, CSV, folders and zip
archives become one file of JSON lines.
"""

import base64
import csv
import json
import mimetypes
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from calibrl.client.errors import CalibrlError
from calibrl_core.data.json_rows import json_rows
from calibrl_core.data.schema import DataError
from calibrl_core.data.shards import bare_name, data_files, kind_of

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST_NAME = 1024  # characters; a longer text is not a path
MOST_UNPACKED = 16 * 10**9  # bytes of an archive, as the service's limit
LONGEST_CELL = 2**25  # characters of CSV
INVALID = 422  # HTTP status of rows that the service refuses
_CAN_HOLD_IMAGES = re.compile(r"(?i)ima?ge?|picture")  # in the name of a column
_HOLDS_IMAGES = re.compile(r"(decoded_)?(images?|img|pictures?)(_(path|file|url)s?|_?\d{1,3})?")
# A path of an image, by its suffix: no other file is read. The service names those formats that it does not take.
_PATH = re.compile(
    r"(?i)(?!data:|https?://)\S.*\.(png|jpe?g|webp|gif|bmp|tiff?|p[bgpn]m|jp2|j2k|avif|qoi|heic|svg|pdf|jxl|ico)"
)
_READ_BY_SERVICE = (b"PAR1", b"\x28\xb5\x2f\xfd")  # first bytes of Parquet and zstd, which need pyarrow


@contextmanager
def packed(path: Path, columns: Mapping[str, str]) -> Iterator[Path]:
    """Yield a file to upload: `path` itself if its rows name no image files, else a temporary file of JSON lines.

    `columns`: names of columns by field, as of the upload. Images are read from the folder of their rows, never from
    outside it.

    Raises:
        CalibrlError: rows name image files that do not exist, or `path` is no data that can be packed.
    """
    with TemporaryDirectory(prefix="calibrl-upload-") as made:
        source = _unzipped(path, Path(made) / "zip") if zipfile.is_zipfile(path) else path
        try:
            files = _files(source)
            if len(files) == 1 and _first_bytes(files[0]) in _READ_BY_SERVICE:
                yield files[0]
                return
            target = Path(made) / f"{bare_name(path)}.jsonl"
            changed = _write(files, source if source.is_dir() else source.parent, columns.get("images"), target)
        except DataError as error:
            raise CalibrlError(f"{path} {error}", status=INVALID) from error
        yield target if changed or len(files) > 1 or files[0].suffix.lower() in DELIMITERS else files[0]


def data_name(path: Path) -> str:
    """Return the name of a dataset by its file or folder."""
    return path.stem if path.suffix.lower() in (".zip", *DELIMITERS) else bare_name(path)


def _unzipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED:
            raise CalibrlError(f"{path} has more than {MOST_UNPACKED // 10**9} GB unpacked", status=INVALID)
        try:
            archive.extractall(folder)  # names that lead outside the folder are changed
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted
            raise CalibrlError(f"{path} cannot be unpacked: {error}", status=INVALID) from error
    return folder


def _files(source: Path) -> list[Path]:
    """Return the file, or the data files of a folder.

    Raises:
        DataError: a folder has none, files of several kinds, or several Parquet files.
    """
    if not source.is_dir():
        return [source]
    tables = sorted(file for file in source.rglob("*") if file.suffix.lower() in DELIMITERS and _is_data(file, source))
    try:
        files = data_files(source)
    except DataError:
        if not tables:
            raise
        return tables
    if tables:
        raise DataError(f"has both {files[0].name} and {tables[0].name}: name the one to upload")
    if len(files) > 1 and kind_of(files[0]) == "parquet":
        raise DataError("has several Parquet files: upload each, and list them in the spec's data")
    return files


def _first_bytes(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)


def _is_data(file: Path, source: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in file.relative_to(source).parts)  # as macOS adds to archives


def _write(files: list[Path], root: Path, named: str | None, target: Path) -> bool:
    """Write all rows with their images. Return whether a row named an image file.

    Raises:
        CalibrlError: image files are missing.
        DataError: a file cannot be read.
    """
    packer = _Packer(root.resolve(), named)
    with target.open("wb") as output:
        for file in files:
            packer.folder = file.resolve().parent
            for raw in _rows(file):
                output.write(packer.line(raw))
    if packer.missing:
        raise _missing(packer.missing, root)
    return packer.changed


def _rows(file: Path) -> Iterator[dict[str, Any] | bytes]:
    delimiter = DELIMITERS.get(file.suffix.lower())
    if delimiter is None:
        yield from json_rows(file)
        return
    csv.field_size_limit(LONGEST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for number, row in enumerate(csv.DictReader(opened, delimiter=delimiter, strict=True), 1):
                if None in row:
                    raise DataError(f"has more cells in row {number} than columns: put quotes around texts with commas")
                yield {name: value for name, value in row.items() if value}  # an empty cell is none
    except UnicodeDecodeError as error:
        raise DataError("is not text in UTF-8: save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"is not valid CSV: {error}") from error


def _missing(names: dict[int, str], root: Path) -> CalibrlError:
    (row, name), others = next(iter(names.items())), len(names) - 1
    more = f" (the same fault: {others:,} more row{'s' if others > 1 else ''})" if others else ""
    text = f"image {name!r} is not a file in {root}: name image files by their path from the folder of the rows"
    return CalibrlError(
        "Images are missing", status=INVALID, errors=({"field": f"rows.{row}", "message": text + more},)
    )


class _Packer:
    """Replaces names of image files in rows by their content as data: URLs."""

    def __init__(self, root: Path, named: str | None) -> None:
        self.folder = root  # of the current rows
        self.changed = False
        self.missing: dict[int, str] = {}  # first missing file by row
        self._root, self._named = root, named
        self._row = 0

    def line(self, raw: dict[str, Any] | bytes) -> bytes:
        """Return a row as a line. A line that is not a JSON object stays as it is: the service names its fault."""
        self._row += 1
        row = raw if isinstance(raw, dict) else _value(raw)
        if not isinstance(row, dict):
            return raw.rstrip(b"\r\n") + b"\n" if isinstance(raw, bytes) else b""
        packed = {name: self._cell(name, value) for name, value in row.items()}
        return json.dumps(packed, ensure_ascii=False).encode() + b"\n"

    def _cell(self, name: str, value: Any) -> Any:
        required = name == self._named if self._named else bool(_HOLDS_IMAGES.fullmatch(name))
        if isinstance(value, str):
            if not (required or _CAN_HOLD_IMAGES.search(name)):
                return value
            if value.lstrip()[:1] in ("[", "{"):  # a list as text, as in CSV
                value = _value(value) or value
        return self._nested(value, required)

    def _nested(self, value: Any, required: bool) -> Any:
        if isinstance(value, list):
            return [self._nested(one, required) for one in value]
        if isinstance(value, dict):
            return {key: one if key == "text" else self._nested(one, required) for key, one in value.items()}
        return self._content(value, required) if isinstance(value, str) else value

    def _content(self, text: str, required: bool) -> str:
        """Return the content of the file that a text names; the text itself if it names none."""
        if len(text) > LONGEST_NAME or not _PATH.fullmatch(text):
            return text
        for folder in (self.folder, self._root):
            try:
                path = (folder / text.removeprefix("file://")).resolve()
                if path.is_relative_to(self._root) and path.is_file():
                    self.changed = True
                    return _data_url(path)
            except (OSError, ValueError, RuntimeError):  # too long, with a NUL, a loop of links
                continue
        if required:
            self.missing.setdefault(self._row, text)
        return text


def _value(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _data_url(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
