"""Each kind of image reaches the model as a viewer shows it on a white page. Values are derived by hand."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibrl_core.data.image_decoding import check_image, image_size, open_image, viewed_image
from calibrl_core.data.schema import Example, completed

ORIENTATION = 274
RED, WHITE, BLUE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 255), (0, 0, 0)
TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(4)
# Where the upper left corner of the stored pixels is shown, by the orientation (EXIF 2.3, 4.6.4.A).
CORNERS = [TOP_LEFT, TOP_RIGHT, BOTTOM_RIGHT, BOTTOM_LEFT, TOP_LEFT, TOP_RIGHT, BOTTOM_RIGHT, BOTTOM_LEFT]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    options |= {"speed": 10} if form == "AVIF" else {}
    image.save(buffer, form, **options)
    return buffer.getvalue()


def shown(data: bytes) -> list[tuple[int, ...]]:
    """Return the pixels that the model sees, row by row."""
    check_image(data)
    image = open_image(data)
    assert image.mode == "RGB"
    assert image.size == image_size(data)
    pixels = image.load()
    assert pixels is not None
    return [pixels[x, y] for y in range(image.height) for x in range(image.width)]  # type: ignore[misc]


def greys(data: bytes) -> list[int]:
    pixels = shown(data)
    assert all(red == green == blue for red, green, blue in pixels)
    return [red for red, *_ in pixels]


def grey(*values: float, kind: type[np.generic]) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=kind))


def png(bits: int, colour: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of one row."""
    width = len(row) * 8 // (bits * (3 if colour == 2 else 1))
    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(form: str, orientation: int) -> None:
    stored, tags = Image.new("RGB", (48, 32), "white"), Image.Exif()
    stored.paste(RED, (0, 0, 16, 16))
    tags[ORIENTATION] = orientation
    data = encoded(stored, form, exif=tags, **({"save_all": True, "append_images": [stored]} if form == "MPO" else {}))
    image = open_image(data)
    assert image.size == image_size(data) == ((48, 32) if orientation < 5 else (32, 48))
    right, bottom = image.width - 4, image.height - 4
    corners = [image.getpixel(place) for place in ((4, 4), (right, 4), (4, bottom), (right, bottom))]
    red = [number for number, colour in enumerate(corners) if isinstance(colour, tuple) and colour[1] < 128]
    assert red == [CORNERS[orientation - 1]]


@pytest.mark.parametrize("metadata", [b"", b"no EXIF at all", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_broken_metadata_do_not_make_an_image_unreadable(metadata: bytes) -> None:
    assert shown(encoded(Image.new("RGB", (1, 1), RED), exif=metadata)) == [RED]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF", "JPEG2000"])
def test_a_transparent_pixel_is_white_whatever_its_colour(form: str) -> None:
    assert shown(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), form)) == [WHITE] * 64


@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("LA", "TIFF", {}),
        ("LA", "TIFF", {"tiffinfo": {338: 1}}),  # colours already multiplied by alpha: mode La
        ("RGBA", "TIFF", {"tiffinfo": {338: 1}}),
    ],
)
def test_half_transparent_black_is_grey(mode: str, form: str, options: dict[str, Any]) -> None:
    """255 * (1 - 128 / 255) = 127."""
    black = (0, 128) if mode == "LA" else (0, 0, 0, 128)
    assert greys(encoded(Image.new(mode, (1, 1), black), form, **options)) == [127]


def test_half_transparent_colour_is_mixed_with_white() -> None:
    """200 * 0.2 + 255 * 0.8 = 244; alpha 51 is 0.2."""
    data = encoded(Image.new("RGBA", (1, 1), (200, 0, 255, 51)), "WEBP", lossless=True, exact=True)
    assert shown(data) == [(244, 204, 255)]


@pytest.mark.parametrize(
    ("form", "transparency", "pixels"),
    [
        ("PNG", 0, [WHITE, BLUE]),
        ("GIF", 1, [RED, WHITE]),
        ("PNG", b"\x80\xff", [(255, 127, 127), BLUE]),  # alpha of each colour of the palette
        ("PNG", b"\xff\x00", [RED, WHITE]),
    ],
)
def test_a_palette_can_be_transparent(form: str, transparency: Any, pixels: list[tuple[int, ...]]) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert shown(encoded(image, form, transparency=transparency)) == pixels


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (png(8, 0, b"\x07\x08", (b"tRNS", b"\x00\x07")), [255, 8]),
        (png(4, 0, b"\x01", (b"tRNS", b"\x00\x00")), [255, 17]),  # 4 bits: 17 is the unit
        (png(2, 0, b"\x1b", (b"tRNS", b"\x00\x01")), [0, 255, 170, 255]),  # 2 bits: 0, 85, 170, 255
        (png(1, 0, b"\x0f", (b"tRNS", b"\x00\x00")), [255] * 8),
        (png(16, 0, b"\x01\x01\x80\x80", (b"tRNS", b"\x01\x01")), [255, 128]),  # 32896 / 257 = 128
        (png(8, 2, b"\x07\x07\x07\x08\x08\x08", (b"tRNS", b"\x00\x07" * 3)), [255, 8]),
        (png(16, 2, b"\x07\x00" * 3 + b"\x08\x00" * 3, (b"tRNS", b"\x07\x00" * 3)), [255, 8]),
    ],
)
def test_a_png_can_name_one_transparent_value(data: bytes, pixels: list[int]) -> None:
    assert greys(data) == pixels


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (encoded(grey(0, 32896, 65535, kind=np.uint16)), [0, 128, 255]),  # 65535 / 255 = 257
        (encoded(grey(0, 32896, 65535, kind=np.uint16), "TIFF"), [0, 128, 255]),
        (encoded(grey(0, 32896, 65535, kind=np.uint16), "TIFF", tiffinfo={262: 0}), [255, 127, 0]),  # white is zero
        (b"P5 3 1 65535\n" + struct.pack(">HHH", 0, 32896, 65535), [0, 128, 255]),
        (b"P5 2 1 15\n\x00\x0f", [0, 255]),
        (encoded(grey(-1000, 0, 1000, kind=np.int32), "TIFF"), [0, 128, 255]),
        (encoded(grey(100_000, 100_051, 100_255, kind=np.int32), "TIFF"), [0, 51, 255]),
        (encoded(grey(7, 7, kind=np.int32), "TIFF"), [7, 7]),
        (encoded(grey(0, 0.2, 1, kind=np.float32), "TIFF"), [0, 51, 255]),
        (encoded(grey(0.2, 0.6, kind=np.float32), "TIFF"), [51, 153]),
        (encoded(grey(273, 283, 323, kind=np.float32), "TIFF"), [0, 51, 255]),
        (encoded(grey(0, 10, np.nan, np.inf, -np.inf, kind=np.float32), "TIFF"), [0, 255, 255, 255, 0]),
        (encoded(grey(np.nan, np.nan, kind=np.float32), "TIFF"), [255, 255]),
        (encoded(Image.new("1", (2, 1), 1)), [255, 255]),
    ],
)
def test_grey_values_are_scaled_to_eight_bits(data: bytes, pixels: list[int]) -> None:
    assert greys(data) == pixels


@pytest.mark.parametrize(
    ("mode", "colour", "form", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), "TIFF", RED),
        ("CMYK", (0, 255, 255, 0), "JPEG", RED),  # Adobe's JPEG stores the opposite values
        ("CMYK", (0, 0, 0, 255), "TIFF", BLACK),
        ("YCbCr", (255, 128, 128), "TIFF", WHITE),
        ("LAB", (255, 128, 128), "TIFF", WHITE),
        ("LAB", (0, 128, 128), "TIFF", BLACK),
        ("RGB", RED, "BMP", RED),
        ("RGB", RED, "GIF", RED),
        ("RGB", RED, "PPM", RED),
        ("RGB", RED, "QOI", RED),
        ("RGB", RED, "JPEG2000", RED),
    ],
)
def test_colours_of_other_forms(mode: str, colour: tuple[int, ...], form: str, expected: tuple[int, ...]) -> None:
    data = encoded(Image.new(mode, (8, 8), colour), form, **({"quality": 100} if form == "JPEG" else {}))
    (seen,) = set(shown(data))
    assert seen == pytest.approx(expected, abs=1)  # LAB is converted through a colour profile


@pytest.mark.parametrize(
    ("image", "form", "options"),
    [
        (Image.new("RGB", (8, 4), RED), "TIFF", {}),
        (Image.new("RGBA", (8, 4), (0, 0, 0, 128)), "PNG", {}),
        (Image.new("CMYK", (8, 4)), "JPEG", {}),
        (grey(0, 32896, kind=np.uint16), "PNG", {}),
        (
            Image.new("RGB", (8, 4), RED),
            "PNG",
            {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
        ),
    ],
)
def test_another_program_gets_an_image_that_it_shows_alike(image: Image.Image, form: str, options: Any) -> None:
    data = encoded(image, form, **options)
    given = viewed_image(data)
    with Image.open(io.BytesIO(given)) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        assert opened.size == open_image(data).size
        assert opened.tobytes() == open_image(data).tobytes()
    assert viewed_image(given) is given


def test_rewards_see_images_upright() -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    turned, plain = encoded(Image.new("L", (8, 4)), exif=tags), encoded(Image.new("L", (8, 4)))
    first, second = completed([Example("x", "q", "a", images=(turned, plain))], ["one", "two"])
    assert first.images == second.images
    assert [image_size(one) for one in first.images] == [(4, 8), (8, 4)]
    assert first.images[1] is plain


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_read(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    assert min(greys(encoded(frames[0], form, save_all=True, append_images=frames[1:]))) >= 254
