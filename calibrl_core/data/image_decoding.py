"""Decodes images as a viewer shows them on a white page: upright, transparent parts white, sRGB with 8 bits per
colour. Of an animation only the first frame is read.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from calibrl_core.data.image_kinds import FORMATS, unreadable
from calibrl_core.data.image_profiles import as_srgb, has_profile
from calibrl_core.data.schema import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 50_000_000  # per image; a small file can unpack to gigabytes
MOST_CHECKED_PIXELS = 8_000_000  # of an image whose completeness only decoding shows: the check needs 100 MB for it
_PLAIN_FORMATS = ("PNG", "JPEG", "WEBP")  # that every program shows
_KEPT = 64  # images that were written as PNG
_JPEG = b"\xff\xd8"  # first bytes
_VERIFIED = ("PNG", "WEBP")  # formats with checksums or lengths of their own
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
# Places of the orientation in a PNG. Pillow decodes all pixels of a PNG to search for it behind them.
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339  # tags of EXIF and TIFF


def open_image(data: bytes) -> Image:
    """Return the decoded image, in mode RGB.

    Raises:
        DataError: its pixels cannot be decoded, which `check_image` does not always notice.
    """
    try:
        with _opened(data) as image:
            _refuse_size(*image.size)
            image.load()
            shown = _in_srgb(_upright(image, _orientation(image, data)), image, data)
            shown.info.pop("icc_profile", None)  # a file made of these pixels must not have it
            return shown
    except DataError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on broken bytes
        raise DataError(f"an image cannot be decoded: it {unreadable(data, _reason(error))}") from error


def viewed_image(data: bytes) -> bytes:
    """Return an image as a file that any viewer shows like `open_image`: itself, or a PNG in place of it. An image that
    cannot be read stays as it is: the step that encodes it names its row.
    """
    with suppress(Exception):
        kind = image_kind(data)
        return data if kind.format in _PLAIN_FORMATS and not kind.converted else _as_png(data)
    return data


@lru_cache(_KEPT)
def _as_png(data: bytes) -> bytes:
    buffer = io.BytesIO()
    open_image(data).save(buffer, "PNG")
    return buffer.getvalue()


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels of the upright image that `check_image` accepted. Decodes no pixel, unless a
    PNG has an orientation.
    """
    with _opened(data) as image:
        width, height = image.size
        return (height, width) if _orientation(image, data) in _TURNED else (width, height)


class ImageKind(NamedTuple):
    """Format of an image file, its upright size in pixels, and why it is converted when it is used."""

    format: str
    width: int
    height: int
    converted: tuple[str, ...]


def image_kind(data: bytes) -> ImageKind:
    """Return facts about an image that `check_image` accepted, from its header."""
    with _opened(data) as image:
        width, height = image.size
        orientation = _orientation(image, data)
        if orientation in _TURNED:
            width, height = height, width
        reasons = {
            "rotated (EXIF)": orientation in range(2, 9),
            "transparent, put on white": image.has_transparency_data,
            "grey of more than 8 bits": image.mode.startswith(("I", "F")),
            "other colours than RGB": image.mode in ("CMYK", "YCbCr", "LAB", "HSV"),
            "colours of a profile": has_profile(image),
            "first frame of several": _is_animated(image),
        }
        return ImageKind(str(image.format), width, height, tuple(name for name, holds in reasons.items() if holds))


def _is_animated(image: Any) -> bool:
    with suppress(Exception):  # a broken second frame does not make the first one unreadable
        return bool(getattr(image, "is_animated", False))
    return False


def check_image(data: bytes) -> None:
    """Check format, size and completeness. Decodes no pixel of PNG, WebP and complete JPEG: that takes ten times longer
    and happens when the image is used. An image of another format is decoded if it is small enough.

    Raises:
        DataError: the image cannot be used. The message begins with the verb.
    """
    from PIL import Image

    try:
        with _opened(data) as image:
            _refuse_size(*image.size)
            small = image.width * image.height <= MOST_CHECKED_PIXELS
            if image.format in _VERIFIED:
                image.verify()  # of PNG: the checksums; of WebP: that all bytes are there
            elif data.startswith(_JPEG):
                if not _has_end(data):
                    _decode_to_check(image, small)
            elif small:
                image.load()
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(_too_large("more than 100 million")) from error
    except Exception as error:
        raise DataError(unreadable(data, _reason(error))) from error


def _opened(data: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=FORMATS)


def _refuse_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(_too_large(f"{width} x {height}"))


def _too_large(pixels: str) -> str:
    return f"has {pixels} pixels; the limit is {MOST_PIXELS // 10**6} million: make it smaller"


def _decode_to_check(image: Image, small: bool) -> None:
    if not small:
        raise ValueError("the end is missing")
    image.load()


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    return "" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())[:200]


def _has_end(jpeg: bytes) -> bool:
    """Return if the marker of the end follows the last scan of a JPEG file. Pixels never contain these bytes."""
    return jpeg.rfind(b"\xff\xd9") > jpeg.rfind(b"\xff\xda")


def _orientation(image: Any, data: bytes) -> int:
    """Return the orientation of EXIF, 1 to 8; 1 if there is none, it cannot be read, or Pillow applies it itself."""
    if image.format == "TIFF" or (image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATION)):
        return 1
    with suppress(Exception):  # broken metadata do not make an image unreadable
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _in_srgb(image: Image, source: Any, data: bytes) -> Image:
    """Return the image in mode RGB. `source`: the image as opened, with its tags."""
    mode, profile = image.mode, source.info.get("icc_profile")
    if mode == "LAB":
        return _from_lab(image)
    if mode == "CMYK":
        return as_srgb(image, mode, profile).convert("RGB")
    return as_srgb(_on_white(image, source, data), mode, profile)


def _from_lab(image: Image) -> Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert converted is not None  # it is not in place
    return converted


def _on_white(image: Image, source: Any, data: bytes) -> Image:
    """Return the image in mode RGB, transparent parts over white. `source`: the image as opened, with its tags."""
    from PIL import Image

    image.info["transparency"] = _transparent_value(image, source, data)
    if image.info["transparency"] is None:
        del image.info["transparency"]
    if image.mode.startswith(("I", "F")):
        image = _as_grey(image, getattr(source, "tag_v2", {}), scaled=source.format == "PPM")
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert("RGB")


def _transparent_value(image: Image, source: Any, data: bytes) -> Any:
    """Return what is transparent, in the values of the decoded pixels: a PNG names it in the values of the file."""
    value = image.info.get("transparency")
    if value is None or source.format != "PNG" or image.mode not in ("L", "RGB"):
        return value
    bits = data[24]  # per colour, in the header
    if isinstance(value, tuple):  # of 16 bits only the higher 8 are decoded
        return tuple(one >> 8 for one in value) if bits == 16 else value
    return value * 255 // (2**bits - 1) if bits < 8 else value


def _as_grey(image: Image, tags: Any, *, scaled: bool) -> Image:
    """Return grey values of more than 8 bits as 8 bits, in mode L, or LA with transparent pixels.

    16 bits (and 12, and `scaled` values of PNM) by their full range. Floats from 0 to 1 by this range, and all other
    values by the smallest and largest of the image. What is not a number is white.
    """
    import numpy
    from PIL import Image

    values = numpy.asarray(image)
    if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (2,))[0] == 1:
        values = values.view(numpy.uint32)
    finite = numpy.isfinite(values)
    low, high = _range(values[finite], image.mode, tags, scaled=scaled)
    shares = (numpy.nan_to_num(values.astype(numpy.float64), posinf=high, neginf=low) - low) / (high - low)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; of these modes Pillow does not read it
        shares = 1 - shares
    shares[numpy.isnan(values)] = 1
    grey = Image.fromarray(numpy.clip(numpy.rint(shares * 255), 0, 255).astype(numpy.uint8))
    hidden = image.info.get("transparency")
    if hidden is not None:
        grey.putalpha(Image.fromarray(numpy.where(values == hidden, 0, 255).astype(numpy.uint8)))
    return grey


def _range(values: Any, mode: str, tags: Any, *, scaled: bool) -> tuple[float, float]:
    """Return the values that become black and white."""
    if mode.startswith("I;16") or (mode == "I" and scaled):
        return 0.0, 4095.0 if tags.get(_BITS) == (12,) else 65535.0
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if low < high else (0.0, 255.0)  # one value throughout: as 8 bits
