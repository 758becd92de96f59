"""Embedded colour profiles (ICC): the colours of an image as sRGB, as viewers show them."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 4_000_000  # bytes of a profile; a larger one is ignored
_KEPT = 16  # transforms; the photos of one camera share theirs
# By the mode of an image: the mode in which it is converted, and the colour space of a profile for it.
_SPACES = {
    **dict.fromkeys(("RGB", "RGBA", "RGBX", "RGBa", "P", "PA"), ("RGB", "RGB")),
    **dict.fromkeys(("L", "LA", "La"), ("L", "GRAY")),
    "CMYK": ("CMYK", "CMYK"),
}


def has_profile(image: Any) -> bool:
    """Return if an image has a profile by which its colours are converted: one that fits its mode, and is not sRGB."""
    return _transform_of(image.mode, image.info.get("icc_profile")) is not None


def as_srgb(image: Image, mode: str, profile: Any) -> Image:
    """Return an image as sRGB, in mode RGB. One whose profile does not count stays as it is, whatever its mode.

    Args:
        image: in mode RGB, or in CMYK.
        mode: that the image had in its file.
        profile: bytes of the profile in its file, or None.
    """
    from PIL import ImageCms

    transform = _transform_of(mode, profile)
    if transform is None:
        return image
    inner = image.getchannel(0) if _SPACES[mode][0] == "L" else image  # the channels of grey in RGB are equal
    converted = ImageCms.applyTransform(inner, transform)
    assert converted is not None  # it is not in place
    return converted


def _transform_of(mode: str, profile: Any) -> Any:
    if mode not in _SPACES or not isinstance(profile, bytes) or not 0 < len(profile) <= LARGEST:
        return None
    return _transform(profile, *_SPACES[mode])


@lru_cache(_KEPT)
def _transform(profile: bytes, mode: str, space: str) -> Any:
    """Return the transform of pixels of a mode to sRGB; None for sRGB itself, a profile of another colour space, and a
    broken one.
    """
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        facts = opened.profile
        if facts.xcolor_space.strip() != space or "srgb" in (facts.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # the library raises several kinds of errors
        return None
