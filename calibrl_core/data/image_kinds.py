"""Kinds of files that stand where an image is expected, recognised by their first bytes."""

import re

# Formats of Pillow that its own code or a linked library reads: none starts a program, none reads another file.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI")
TAKEN = "PNG, JPEG, WebP, GIF, BMP, TIFF, PNM, JPEG 2000, AVIF and QOI"
LOOKED_AT = 1024  # first bytes of a file that tell its kind
_CONVERT = "convert it to PNG"
_DOWNLOAD = "the download of the image failed: repeat it"
# Of each kind: its first bytes, its name, and what to do.
_KINDS = (
    (rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body|script)\b", "an HTML page", _DOWNLOAD),
    (rb"\s*(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE svg.*?>\s*)*<svg\b", "an SVG drawing", _CONVERT),
    (rb"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull`"),
    (rb"\s*<\?xml", "an XML text", _DOWNLOAD),
    (rb"\s*[\[{]\s*[\"{\[\]}]", "a JSON text", _DOWNLOAD),
    (rb"%PDF", "a PDF document", "convert its page to PNG"),
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "a HEIC photo", _CONVERT),
    (rb"....ftypavi[fs]", "an AVIF image", ""),
    (rb"....ftyp", "an MP4 video", "extract a frame as PNG"),
    (rb"\x89PNG", "a PNG image", ""),
    (rb"\xff\xd8", "a JPEG image", ""),
    (rb"RIFF....WEBP", "a WebP image", ""),
    (rb"RIFF....AVI ", "an AVI video", "extract a frame as PNG"),
    (rb"\x1aE\xdf\xa3", "a WebM or Matroska video", "extract a frame as PNG"),
    (rb"GIF8[79]a", "a GIF image", ""),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF image", ""),
    (rb"BM", "a BMP image", ""),
    (rb"P[1-7fFyY]\s", "a PNM image", ""),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image", ""),
    (rb"qoif", "a QOI image", ""),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image", _CONVERT),
    (rb"8BPS", "a Photoshop document", _CONVERT),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "an EPS drawing", _CONVERT),
    (rb"\0\0[\1\2]\0", "an icon (ICO)", _CONVERT),
    (rb"\x76\x2f\x31\x01", "an OpenEXR image", _CONVERT),
    (rb"DDS ", "a DDS texture", _CONVERT),
    (rb".{128}DICM", "a DICOM image", _CONVERT),
    (rb"SIMPLE  =", "a FITS image", _CONVERT),
    (rb"\x93NUMPY", "a NumPy array", _CONVERT),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "unpack it"),
)
_NAMED = tuple((re.compile(first, re.DOTALL | re.IGNORECASE), name, remedy) for first, name, remedy in _KINDS)


def image_kind(data: bytes) -> str | None:
    """Return the kind of image or document that begins with these bytes, as `a PNG image`; None: a text, or unknown."""
    if data.lstrip()[:1] in (b"{", b"[", b"<", b'"'):
        return None
    return next((name for first, name, _ in _NAMED if first.match(data[:LOOKED_AT])), None)


def unreadable(data: bytes, reason: str) -> str:
    """Return why `data` is no image that can be read, with the remedy. `reason`: of the decoder, or an empty text."""
    if not data:
        return f"is empty, not an image that can be read ({TAKEN}): {_DOWNLOAD}, or remove the row"
    if not data.strip(b"\0"):
        return f"holds only zeros, not an image that can be read ({TAKEN}): {_DOWNLOAD}, or remove the row"
    for first, name, remedy in _NAMED:
        if first.match(data[:LOOKED_AT]):
            if remedy:
                return f"is {name}, not an image that can be read ({TAKEN}): {remedy}"
            return f"is {name} that is damaged or incomplete{reason and f' ({reason})'}: replace it or remove the row"
    return f"begins with {data[:8]!r}, which is none of {TAKEN}: {_CONVERT}, or remove the row"
