"""Embedded colour profiles: colours become sRGB, and images without one keep their pixels exactly."""

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageCms

from calibrl_core.data.image_decoding import image_kind, open_image, viewed_image

# Columns of sRGB's primaries as X, Y and Z under D50, and its white.
RED, GREEN, BLUE = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
WHITE = (0.9642, 1.0, 0.8249)
LINEAR = b"curv" + bytes(8)  # a curve without entries is the identity


def xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def text(content: str) -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", len(content) + 1) + content.encode() + bytes(1 + 4 + 4 + 2 + 1 + 67)


def icc(space: bytes, tags: dict[bytes, bytes], name: str = "made by hand") -> bytes:
    """Return a profile of a display in version 2.1 of ICC's format."""
    tags = {b"desc": text(name), b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": xyz(WHITE)} | tags
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I", start + len(body)) + b"lcms" + bytes([2, 0x10, 0, 0]) + b"mntr" + space + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + xyz(WHITE)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def of_colours(red: Any, green: Any, blue: Any, name: str = "made by hand") -> bytes:
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), LINEAR)
    return icc(b"RGB ", {b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue)} | curves, name)


LINEAR_RGB = of_colours(RED, GREEN, BLUE)
SWAPPED = of_colours(BLUE, GREEN, RED)
LINEAR_GREY = icc(b"GRAY", {b"kTRC": LINEAR})


def png(mode: str, colour: Any, profile: bytes | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (2, 2), colour).save(buffer, "PNG", icc_profile=profile, **options)
    return buffer.getvalue()


def pixel(data: bytes) -> Any:
    return open_image(data).getpixel((0, 0))


def near(first: Any, second: Any) -> bool:
    return all(abs(one - other) <= 1 for one, other in zip(first, second, strict=True))


# A linear value of 128 / 255 = 0.502 is 1.055 x 0.502^(1 / 2.4) - 0.055 = 0.7366 in sRGB: 188 of 255.
@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (png("RGB", (128, 128, 128), LINEAR_RGB), (188, 188, 188)),
        (png("RGB", (255, 0, 0), SWAPPED), (0, 0, 255)),
        (png("RGBA", (255, 0, 0, 255), SWAPPED), (0, 0, 255)),
        (png("RGBA", (255, 0, 0, 0), SWAPPED), (255, 255, 255)),
        (png("RGB", (255, 0, 0), SWAPPED, transparency=(255, 0, 0)), (255, 255, 255)),
        (png("L", 128, LINEAR_GREY), (188, 188, 188)),
        (png("LA", (128, 255), LINEAR_GREY), (188, 188, 188)),
    ],
)
def test_colours_of_a_profile_become_srgb(data: bytes, shown: tuple[int, int, int]) -> None:
    assert near(pixel(data), shown)
    assert "colours of a profile" in image_kind(data).converted
    seen = viewed_image(data)
    assert near(Image.open(io.BytesIO(seen)).convert("RGB").getpixel((0, 0)), shown)
    assert "icc_profile" not in Image.open(io.BytesIO(seen)).info


def test_a_palette_has_the_colours_of_its_profile() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (255, 0, 0)).quantize(2).save(buffer, "PNG", icc_profile=SWAPPED)
    assert near(pixel(buffer.getvalue()), (0, 0, 255))


@pytest.mark.parametrize(
    "profile",
    [
        None,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        of_colours(BLUE, GREEN, RED, name="sRGB IEC61966-2.1"),
        SWAPPED[:200],
        b"no profile",
        LINEAR_GREY,  # of another colour space
    ],
)
def test_other_profiles_leave_every_pixel_as_it_is(profile: bytes | None) -> None:
    image = Image.frombytes("RGB", (16, 16), bytes(range(256)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", icc_profile=profile)
    assert open_image(buffer.getvalue()).tobytes() == image.tobytes()
    assert image_kind(buffer.getvalue()).converted == ()
    assert viewed_image(buffer.getvalue()) == buffer.getvalue()


def test_cmyk_without_a_profile_of_its_own_stays_as_it_is() -> None:
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    files = []
    for profile in (None, SWAPPED):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF", icc_profile=profile)
        files.append(buffer.getvalue())
    assert pixel(files[0]) == pixel(files[1]) == (255, 0, 0)


def test_a_turned_photo_is_converted_and_upright() -> None:
    image = Image.new("RGB", (2, 1), (255, 0, 0))
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", icc_profile=SWAPPED, exif=exif)
    shown: Any = open_image(buffer.getvalue())
    assert shown.size == (1, 2) and near(shown.getpixel((0, 0)), (0, 0, 255))
