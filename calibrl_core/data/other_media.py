"""Videos and sounds in rows: training does not support them, and a prompt without them would be another one."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from calibrl_core.data.image_tags import TAG
from calibrl_core.data.row import has_content
from calibrl_core.data.schema import DataError

_COLUMNS = re.compile(r"(video|audio)(?:s|_?(?:path|url|file)s?)?", re.IGNORECASE)
_TAGS = {"<video>": "videos", "<audio>": "sounds"}


def refuse_media_columns(values: Mapping[str, Any]) -> None:
    """Check that no column of a row holds a video or a sound.

    Raises:
        DataError: one does.
    """
    for name, value in values.items():
        if has_content(value) and not isinstance(value, int | float) and _COLUMNS.fullmatch(name):
            kind = "videos" if name.lower().startswith("video") else "sounds"
            raise DataError(
                f"column {name!r} holds {kind}, which training does not support: remove these rows, or the column if "
                "the question needs none"
            )


def refuse_media_tags(texts: Iterable[str]) -> None:
    """Check that no text, with its tags of images as `<image>`, begins or ends with the tag of a video or a sound.

    Raises:
        DataError: one does.
    """
    for text in texts:
        bare = text.replace(TAG, "").strip().lower()
        for tag, kind in _TAGS.items():
            if bare.startswith(tag) or bare.endswith(tag):
                raise DataError(f"the prompt has a tag {tag}, and training does not support {kind}: remove these rows")
