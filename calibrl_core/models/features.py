"""Images as a forward pass takes them: pixels, or the features that they came to where these can serve again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptRows


@dataclass
class _Features:
    """Of prompts' images `[tokens, D]`, by the images; `output` is one of the tower's, to put others into."""

    by_images: dict[tuple[bytes, ...], Tensor] = field(default_factory=dict)
    output: Any = None


class ImageInputs:
    """The image inputs of forward passes. Where a prompt stands in several rows its images still run once, and within
    `kept` once for all passes, if the model takes what they came to in place of pixels."""

    def __init__(self, decoder: Any, encode: Callable[[Sequence[Example]], PromptRows], takes_features: bool) -> None:
        """`encode`: as `Policy.encode`."""
        self._decoder, self._encode = decoder, encode
        vision = getattr(decoder.config, "vision_config", None)
        deep = hasattr(vision, "deepstack_visual_indexes")  # features for inner layers too
        self._takes_features = takes_features and not deep
        self._kept: _Features | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While no weight changes, and no pass wants a gradient: what images came to once serves again."""
        self._kept = _Features()
        try:
            yield
        finally:
            self._kept = None

    def of(self, examples: Sequence[Example], prompts: PromptRows, order: Sequence[int]) -> Mapping[str, Any]:
        """The image inputs of rows whose prompts are, in `order`, these examples; `prompts` are they, encoded."""
        once = list(order) == list(range(len(examples)))
        if not prompts.images or (once and (self._kept is None or not self._takes_features)):
            return prompts.images
        if not self._takes_features:
            return self._encode([examples[place] for place in order]).images
        features = _Features() if self._kept is None else self._kept
        self._complete(features, examples, prompts)
        shown = [features.by_images[examples[place].images] for place in order if examples[place].images]
        output = copy.copy(features.output)
        output.pooler_output = torch.cat(shown) if isinstance(output.pooler_output, Tensor) else shown
        others = {name: tensor for name, tensor in prompts.images.items() if not name.startswith("pixel")}
        return {"mm_encoder_outputs": {"image": output}, **others}

    def _complete(self, features: _Features, examples: Sequence[Example], prompts: PromptRows) -> None:
        """Run the images that are not among the features yet."""
        missing = [one for one in examples if one.images and one.images not in features.by_images]
        if not missing:
            return
        rows = prompts if len(missing) == len(examples) else self._encode(missing)
        found = self._decoder.get_image_features(**rows.images, return_dict=True)
        pooled = found.pooler_output  # of each image, or of each prompt's; [tokens, D], or all [images, tokens, D]
        flat = pooled.flatten(0, -2) if isinstance(pooled, Tensor) else torch.cat(list(pooled))
        sizes = self._image_tokens(rows.input_ids).sum(-1).tolist()
        features.by_images |= {one.images: own for one, own in zip(missing, flat.split(sizes), strict=True)}
        features.output = features.output or found

    def _image_tokens(self, tokens: Tensor) -> Tensor:
        config = self._decoder.config
        mark: int = config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index
        return tokens == mark
