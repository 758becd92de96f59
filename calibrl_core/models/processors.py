"""Loads the processor of an image-text model. Most processors load without torchvision: only videos need it.

transformers has two image processors per family: one on torchvision, one on Pillow. The trainer uses the first one if
torchvision is installed. Both return the same tokens; their pixels differ by the rounding of resizing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from calibrl_core.models.errors import ModelError

VIDEO = "video_processor"  # argument of processors, and entry of their config
EXTRA = "calibrl[vision]"
PACKAGES = ("torchvision", "num2words")  # of this extra
# Files with the settings of the video part, if `processor_config.json` has none: the first that exists.
VIDEO_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


def load_processor(path: str, config: Any) -> Any:
    """Return the processor of the image-text model `path`: a folder, or a name on the hub. `config`: the model's.

    Without torchvision, a processor with a part for videos gets a stand-in for that part: only videos need it.

    Raises:
        ModelError: the processor needs a package that is not installed.
        OSError: files are missing.
    """
    from transformers import AutoProcessor
    from transformers.utils.import_utils import is_torchvision_available

    with packages_named(path):
        if not is_torchvision_available():
            kind = _processor_class(path, config)
            if kind is not None and VIDEO in kind.get_attributes():
                return _without_videos(kind, path)
        return AutoProcessor.from_pretrained(path, trust_remote_code=False)


def load_tokenizer(path: str) -> Any:
    """Return the tokenizer of the text model `path`: a folder, or a name on the hub.

    Raises:
        ModelError: the tokenizer needs a package that is not installed.
        OSError: files are missing.
    """
    from transformers import AutoTokenizer

    with packages_named(path):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


@contextmanager
def packages_named(path: str) -> Iterator[None]:
    """Name the package that a model's processor needs, instead of an import that fails.

    Raises:
        ModelError: a package is not installed.
    """
    try:
        yield
    except (ImportError, ValueError) as error:  # a ValueError if a kind has an image processor on torchvision only
        text = " ".join(str(error).split())
        named = (name for name in PACKAGES if re.search(name, text, re.IGNORECASE))
        missing = next((name for name in named if find_spec(name) is None), None)
        if missing is None and isinstance(error, ValueError):
            raise
        raise ModelError(
            f"model: the processor of {path} needs the package {missing}, which is not installed; install the extra: "
            f"pip install {EXTRA!r}"
            if missing
            else f"model: the processor of {path} cannot be imported ({text}); install the package that it needs"
        ) from error


def _processor_class(path: str, config: Any) -> Any:
    """Return the class that a model's files name, or that of its kind of model; None if there is none."""
    import transformers
    from transformers import PROCESSOR_MAPPING

    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if name := _read(path, file).get("processor_class"):
            return getattr(transformers, name, None)
    return PROCESSOR_MAPPING.get(type(config), None)


def _without_videos(kind: Any, path: str) -> Any:
    """Return a processor of class `kind` whose part for videos is a stand-in."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

    loaders: dict[str, Any] = {
        "image_processor": AutoImageProcessor,
        "tokenizer": AutoTokenizer,
        "feature_extractor": AutoFeatureExtractor,
    }
    settings, _ = kind.get_processor_dict(path)
    parts = [
        _stand_in(_video_settings(path, settings))
        if name == VIDEO
        else loaders[name].from_pretrained(path, trust_remote_code=False)
        for name in kind.get_attributes()
    ]
    return _image_class(kind).from_args_and_dict(parts, settings)


def _image_class(kind: Any) -> Any:
    """Return the class `kind`, with its name, without the check of its part for videos: it imports torchvision."""

    def check(self: Any, name: str, argument: Any) -> Any:
        return type(argument) if name == VIDEO else kind.check_argument_for_proper_class(self, name, argument)

    def reduced(self: Any) -> Any:  # for pickle, which finds `kind` under the name of this class
        return _restored, (kind, vars(self))

    methods = {"check_argument_for_proper_class": check, "__reduce__": reduced}
    return type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__})


def _restored(kind: Any, attributes: dict[str, Any]) -> Any:
    processor = object.__new__(_image_class(kind))
    vars(processor).update(attributes)
    return processor


def _video_settings(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = settings.get(VIDEO) or next(filter(None, (_read(path, file) for file in VIDEO_FILES)), {})
    return found


def _stand_in(settings: dict[str, Any]) -> Any:
    """Return a video processor that has the settings of the real one and processes nothing.

    A saved processor keeps the settings: where torchvision is installed, it loads with its part for videos.
    """
    from transformers.video_processing_utils import VideoProcessorMixin

    class StandIn(VideoProcessorMixin):
        def to_dict(self) -> dict[str, Any]:
            return dict(settings)

        def __reduce__(self) -> Any:
            return _stand_in, (settings,)

    return StandIn(**settings)


def _read(path: str, file: str) -> dict[str, Any]:
    """Return the content of a JSON file of a model; empty if there is no such file."""
    from transformers.utils.hub import cached_file

    found = cached_file(
        path, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    content: dict[str, Any] = json.loads(Path(found).read_text()) if found else {}
    return content
