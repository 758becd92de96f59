"""Images of data files: checked by their headers at load, decoded when they are used."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from calibrl_core import data
from calibrl_core.data.image_decoding import image_size
from calibrl_core.data.schema import DataError, Example, FileData
from calibrl_core.models.policy import Policy


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def broken_png() -> bytes:
    """A PNG with right checksums whose pixels are no zlib stream."""
    header = struct.pack(">IIBBBBB", 8, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")


def load(folder: Path, *images: bytes) -> Sequence[Example]:
    rows = [{"question": "q", "answer": "1", "images": base64.b64encode(image).decode()} for image in images]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data.load(FileData(path=str(folder / "own.jsonl")))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_loading_data_decodes_no_pixel(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, form)

    def refuse(self: ImageFile.ImageFile) -> None:
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    (example,) = load(tmp_path, buffer.getvalue())
    assert image_size(example.images[0]) == (8, 4)


def test_a_jpeg_without_its_end_is_decoded_at_load(tmp_path: Path) -> None:
    """Its pixels decide. Bytes of an end in the header, such as a preview's, do not count."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").save(buffer, "JPEG", comment=b"\xff\xd9")
    with pytest.raises(DataError, match="row 2: the image is a JPEG image that is damaged or incomplete"):
        load(tmp_path, buffer.getvalue(), buffer.getvalue()[:-200])


def test_an_image_that_is_broken_at_use_is_named_with_its_row(tmp_path: Path, policy: Policy, png: bytes) -> None:
    examples = load(tmp_path, png, broken_png())
    policy.encode(examples[:1])
    with pytest.raises(DataError, match=r"own/2: an image cannot be decoded: .*; replace it or remove the row"):
        policy.encode(examples)
