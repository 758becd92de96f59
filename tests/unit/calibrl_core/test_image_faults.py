"""Files that are no image, or a broken one, are refused with their kind, their place and the remedy."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from calibrl_core.data import load
from calibrl_core.data.images import LARGEST_FILE, read_images
from calibrl_core.data.schema import DataError, FileData


def encoded(form: str, size: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 90).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is empty, not an image that can be read .PNG, JPEG, .*: the download of the image failed"),
        (b"\0" * 64, "holds only zeros"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is an HTML page"),
        (b"\n<html>", "is an HTML page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing.*: convert it to PNG"),
        (b'<?xml version="1.0"?>\n<!-- by hand --><svg/>', "is an SVG drawing"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML text"),
        (b'{"error": "not found"}', "is a JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS.*git lfs pull"),
        (b"%PDF-1.7\n", "is a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC photo.*: convert it to PNG"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "is an MP4 video"),
        (b"8BPS\0\1", "is a Photoshop document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is an EPS drawing"),
        (b"PK\x03\x04", "is an archive"),
        (encoded("ICO"), "is an icon"),
        (b"hello", "begins with b'hello', which is none of PNG, JPEG, WebP, GIF"),
        (encoded("PNG")[:-30], "is a PNG image that is damaged or incomplete"),
        (encoded("JPEG")[:-30], "is a JPEG image that is damaged or incomplete"),
        (encoded("WEBP")[:-30], "is a WebP image that is damaged or incomplete"),
        (encoded("GIF")[:-200], "is a GIF image that is damaged or incomplete"),
        (encoded("BMP")[:-30], "is a BMP image that is damaged or incomplete"),
        (encoded("TIFF")[:-30], "is a TIFF image that is damaged or incomplete"),
        (encoded("PPM")[:-30], "is a PNM image that is damaged or incomplete"),
        (encoded("AVIF")[:-30], "is an AVIF image that is damaged or incomplete"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_images(data, None)


def test_the_image_of_a_row_is_named_by_number_and_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "none.jpg").write_bytes(b"")
    rows = [
        {"question": "q", "answer": "1", "images": ["a.png", "none.jpg"]},
        {"question": "q", "answer": "1", "images": ""},
        {"question": "q", "answer": "1", "images": base64.b64encode(b"%PDF-1.7" * 40).decode()},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as refused:
        load(FileData(path=str(tmp_path / "x.jsonl")))
    first, second, third = str(refused.value).split("; ")
    assert "row 1: image 2 of 2 ('none.jpg') is empty" in first
    assert re.search("row 2: an image is an empty text: give a path or the image .PNG.*or null", second)
    assert "row 3: the image is a PDF document" in third


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(DataError, match=r"'huge.png' has 100000001 bytes; the limit is 100000000"):
        read_images("huge.png", tmp_path)


def test_an_incomplete_image_too_large_to_decode_is_refused_by_its_header() -> None:
    """9 million pixels: only the missing marker of the end is noticed."""
    buffer = io.BytesIO()
    Image.new("L", (3000, 3000)).save(buffer, "JPEG")
    with pytest.raises(DataError, match="the end is missing"):
        read_images(buffer.getvalue()[:-2], None)
