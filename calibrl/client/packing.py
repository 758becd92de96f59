"""Packs rows whose images are files beside them, so that an upload contains the images: JSON rows, CSV, folders and zip
archives become one file of JSON lines.
"""

import base64
import csv
import json
import mimetypes
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from calibrl.client.errors import CalibrlError
from calibrl_core.data.json_rows import json_rows
from calibrl_core.data.schema import DataError
from calibrl_core.data.shards import bare_name, check_splits, data_files, kind_of

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
            root, named = source if source.is_dir() else source.parent, columns.get("images")
            as_is = len(files) == 1 and files[0].suffix.lower() not in DELIMITERS
            packed_file = files[0]
            if not as_is or _names_images(files, root, named):
                packed_file = Path(made) / f"{bare_name(path)}.jsonl"
                _write(files, root, named, packed_file)
        except DataError as error:
            raise CalibrlError(f"{path} {error}", status=INVALID) from error
        yield packed_file


def data_name(path: Path) -> str:
    """Return the name of a dataset by its file or folder."""
    return path.stem if path.suffix.lower() in (".zip", *DELIMITERS) else bare_name(path)


def _unzipped(path: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED:
                raise CalibrlError(f"{path} has more than {MOST_UNPACKED // 10**9} GB unpacked", status=INVALID)
            archive.extractall(folder)  # names that lead outside the folder are changed
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        # Damaged, encrypted, or compressed in another way.
        raise CalibrlError(f"{path} cannot be unpacked: {error}", status=INVALID) from error
    return folder


def _files(source: Path) -> list[Path]:
    """Return the file, or the data files of a folder.

    Raises:
        DataError: a folder has none, files of several kinds or splits, or several Parquet files.
    """
    if not source.is_dir():
        return [source]
    found = [file for file in source.rglob("*") if _is_data(file, source)]
    tables = sorted(file for file in found if file.suffix.lower() in DELIMITERS)
    if tables and not any(map(kind_of, found)):
        check_splits(source, tables)
        return tables
    files = data_files(source)
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


def _names_images(files: list[Path], root: Path, named: str | None) -> bool:
    """Return whether a row names an image file, or should. Nothing is written for the others.

    Raises:
        DataError: a file cannot be read.
    """
    packer = _Packer(root.resolve(), named)
    for file in files:
        packer.folder = file.resolve().parent
        for raw in _rows(file):
            packer.line(raw)
            if packer.changed or packer.missing:
                return True
    return False


def _write(files: list[Path], root: Path, named: str | None, target: Path) -> None:
    """Write all rows with their images.

    Raises:
        CalibrlError: image files are missing, or the temporary file cannot be written.
        DataError: a file cannot be read.
    """
    packer = _Packer(root.resolve(), named)
    try:
        with target.open("wb") as output:
            for file in files:
                packer.folder = file.resolve().parent
                for raw in _rows(file):
                    output.write(packer.line(raw))
    except OSError as error:
        raise CalibrlError(f"the rows cannot be written with their images to {target}: {error.strerror}") from error
    if packer.missing:
        raise _missing(packer.missing, root.resolve())


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
        return json.dumps(packed).encode() + b"\n"

    def _cell(self, name: str, value: Any) -> Any:
        required = name == self._named if self._named else bool(_HOLDS_IMAGES.fullmatch(name))
        can_hold = required or bool(_CAN_HOLD_IMAGES.search(name))
        if can_hold and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):  # a list as text, as in CSV
            value = _value(value) or value
        return self._nested(value, can_hold, required)

    def _nested(self, value: Any, can_hold: bool, required: bool) -> Any:
        """Return a value with images. `can_hold`: its column, or a key around it, is for images."""
        if isinstance(value, list):
            return [self._nested(one, can_hold, required) for one in value]
        if isinstance(value, dict):
            is_image = can_hold or "image" in str(value.get("type"))
            return {
                key: one
                if key == "text"
                else self._nested(one, is_image or bool(_CAN_HOLD_IMAGES.search(str(key))), required)
                for key, one in value.items()
            }
        return self._content(value, required) if can_hold and isinstance(value, str) else value

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
