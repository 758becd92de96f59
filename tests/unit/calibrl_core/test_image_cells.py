"""Forms in which a cell holds an image: each gives the same bytes, or one sentence with the remedy."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from calibrl_core.data.image_cells import decode_base64
from calibrl_core.data.images import read_images
from calibrl_core.data.schema import DataError

FORMS: dict[str, Callable[[str], Any]] = {
    "wrapped": lambda text: "\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n",
    "wrapped, CRLF": lambda text: "\r\n".join(text[at : at + 20] for at in range(0, len(text), 20)),
    "letters of URLs": lambda text: text.replace("+", "-").replace("/", "_"),
    "no padding": lambda text: text.rstrip("="),
    "data URL": lambda text: f"data:image/png;base64,{text}",
    "data URL, capitals": lambda text: f"DATA:image/png;name=a.png;BASE64,{text}",
    "data URL, escaped": lambda text: f"data:image/png;base64,{quote(text, safe='')}",
    "data URL, wrapped": lambda text: f"data:image/png;base64,\n{text[:40]}\n{text[40:]}",
    "bare prefix": lambda text: f"base64,{text}",
    "path": lambda text: "a.png",
    "file address": lambda text: "file://a.png",
    "verl": lambda text: {"image": "a.png"},
    "verl, inline": lambda text: {"image": f"data:image/png;base64,{text}"},
    "OpenAI": lambda text: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}},
    "Anthropic": lambda text: {"type": "image", "source": {"type": "base64", "data": text}},
    "Parquet": lambda text: {"bytes": base64.b64decode(text), "path": None},
    "Parquet, path only": lambda text: {"bytes": None, "path": "a.png"},
    "object of text": lambda text: {"bytes": text, "path": None},
    "JSON text": lambda text: json.dumps({"image": "a.png"}),
    "list": lambda text: ["a.png"],
    "JSON list": lambda text: json.dumps([text]),
    "Python list": lambda text: "['a.png']",
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_cell_gives_the_image(tmp_path: Path, png: bytes, form: str) -> None:
    (tmp_path / "a.png").write_bytes(png)
    assert read_images(FORMS[form](base64.b64encode(png).decode()), tmp_path) == (png,)


def test_lists_keep_their_order(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    longer = png + b"\0"  # the file format ignores bytes after its end
    cell = json.dumps(["a.png", base64.b64encode(longer).decode()])
    assert read_images(cell, tmp_path) == (png, longer)
    assert read_images([], tmp_path) == read_images(None, tmp_path) == read_images("[]", tmp_path) == ()


def test_all_letters_of_base64_are_read() -> None:
    assert decode_base64("-_-_") == decode_base64("+/+/") == bytes([0xFB, 0xFF, 0xBF])
    assert decode_base64("YQ==") == b"a"
    assert decode_base64("YWFh" * 12 + "YQ") == decode_base64("YWFh" * 12 + "YQ==") == b"a" * 37
    assert decode_base64("data:text/plain,a%20b") == b"a b"


@pytest.mark.parametrize("text", ["not base64!", "日本", "Y", "YQ=YQ", "a\x00b", "/etc/passwd"])
def test_other_texts_are_not_base64(text: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        decode_base64(text)


@pytest.mark.parametrize("cell", ["https://a.org/a.png", {"image_url": {"url": "http://a.org"}}, ["s3://b/a.png"]])
def test_an_address_is_refused_with_the_remedy(tmp_path: Path, cell: Any) -> None:
    with pytest.raises(DataError, match="nothing is downloaded: put the file next to the data"):
        read_images(cell, tmp_path)


def test_an_object_without_an_image_is_refused_with_its_keys(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an object with 'caption', 'image', none of which"):
        read_images({"caption": "a", "image": None}, tmp_path)
    nested: dict[str, Any] = {"image": "a.png"}
    for _ in range(20):
        nested = {"image": nested}
    with pytest.raises(DataError, match="none of which holds an image"):
        read_images(nested, tmp_path)
