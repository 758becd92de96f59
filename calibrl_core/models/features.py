"""Image inputs of a forward pass: pixel tensors, or cached vision features."""

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
    """Vision features `[tokens, D]` of prompts, by their images. `output`: an output of the vision tower, used as a
    template for combined outputs.
    """

    by_images: dict[Sequence[bytes], Tensor] = field(default_factory=dict)
    output: Any = None


class ImageInputs:
    """Image inputs of forward passes.

    Images of a prompt that occurs in several rows run once. Within `cached` they run once for all passes, if the model
    accepts features instead of pixels.
    """

    def __init__(self, decoder: Any, encode: Callable[[Sequence[Example]], PromptRows], takes_features: bool) -> None:
        """Store the model's decoder. `encode`: as `Policy.encode`. `takes_features`: the decoder accepts
        `mm_encoder_outputs`.
        """
        self._decoder, self._encode = decoder, encode
        vision = getattr(decoder.config, "vision_config", None)
        deep = hasattr(vision, "deepstack_visual_indexes")  # features also enter inner layers
        self._takes_features = takes_features and not deep
        self._cache: _Features | None = None

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Reuse image features. Only valid while no weight changes and no pass needs a gradient."""
        self._cache = _Features()
        try:
            yield
        finally:
            self._cache = None

    def inputs_for(self, examples: Sequence[Example], prompts: PromptRows, order: Sequence[int]) -> Mapping[str, Any]:
        """Return the image inputs of rows.

        Args:
            examples: prompts of the rows, each once.
            prompts: the same prompts, encoded.
            order: for each row, the index of its prompt in `examples`.
        """
        once = list(order) == list(range(len(examples)))
        if not prompts.images or (once and (self._cache is None or not self._takes_features)):
            return prompts.images
        if not self._takes_features:
            return self._encode([examples[place] for place in order]).images
        features = _Features() if self._cache is None else self._cache
        self._complete(features, examples, prompts)
        shown = [features.by_images[examples[place].images] for place in order if examples[place].images]
        output = copy.copy(features.output)
        output.pooler_output = torch.cat(shown) if isinstance(output.pooler_output, Tensor) else shown
        others = {name: tensor for name, tensor in prompts.images.items() if not name.startswith("pixel")}
        return {"mm_encoder_outputs": {"image": output}, **others}

    def _complete(self, features: _Features, examples: Sequence[Example], prompts: PromptRows) -> None:
        """Compute the features of images that are not in `features` yet."""
        missing = [one for one in examples if one.images and one.images not in features.by_images]
        if not missing:
            return
        rows = prompts if len(missing) == len(examples) else self._encode(missing)
        output = self._decoder.get_image_features(**rows.images, return_dict=True)
        # a list with [tokens, D] per image or per prompt, or a tensor [images, tokens, D]
        pooled = output.pooler_output
        flat = pooled.flatten(0, -2) if isinstance(pooled, Tensor) else torch.cat(list(pooled))
        sizes = self._image_tokens(rows.input_ids).sum(-1).tolist()
        features.by_images |= {one.images: own for one, own in zip(missing, flat.split(sizes), strict=True)}
        features.output = features.output or output

    def _image_tokens(self, tokens: Tensor) -> Tensor:
        config = self._decoder.config
        mark: int = config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index
        return tokens == mark
