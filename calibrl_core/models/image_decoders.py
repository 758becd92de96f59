"""Decoders of image-text models whose classes in transformers return no hidden states (Llama 4), or other ones for a
row of a batch than for the row alone (Mllama).

`R`: rows. `S`: tokens. `N`: images of the row that has most. `M`: vision tokens of `N` images. `D`: hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from calibrl_core.models.attention import mask_for


def decoder_of(model: Any) -> Any:
    """Return a model without its head: the output of its forward pass has `last_hidden_state` `[R, S, D]`."""
    kind = model.config.model_type
    if kind == "llama4":
        return Llama4Decoder(model)
    if kind == "mllama":
        return MllamaDecoder(model.model)
    base = model.base_model
    # A class whose prefix names no attribute, such as Llama 4's text model, returns itself.
    return base if base is not model else model.model


class Llama4Decoder:
    """Llama 4 with images. Its class in transformers returns logits only."""

    def __init__(self, model: Any) -> None:
        self.config, self._model = model.config, model

    def forward(
        self, input_ids: Tensor, position_ids: Tensor | None = None, pixel_values: Tensor | None = None, **others: Any
    ) -> Any:
        """Return the output of the language model.

        Args:
            input_ids: `[R, S]` long.
            position_ids: `[R, S]` long.
            pixel_values: `[tiles, 3, height, width]`, of all images in order.
            others: further arguments of the language model.
        """
        model = self._model
        embeddings = model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            patches = model.get_image_features(pixel_values=pixel_values, return_dict=True).last_hidden_state
            features = model.multi_modal_projector(patches.flatten(0, -2)).to(embeddings.dtype)
            places = model.get_placeholder_mask(input_ids, inputs_embeds=embeddings, image_features=features)
            embeddings = embeddings.masked_scatter(places, features)
        return model.language_model.model(inputs_embeds=embeddings, position_ids=position_ids, **others)

    __call__ = forward


class MllamaDecoder:
    """Mllama, whose images enter by cross-attention.

    In transformers a token that sees no image attends to all vision tokens of its row, also to those that only pad the
    row, and the layers of cross-attention run for all rows or for none. Here every row gets what it gets alone, and
    every pass runs all layers, as processes that share the weights must: for a row without images they change nothing.
    """

    def __init__(self, model: Any) -> None:
        self.config, self._model = model.config, model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        pixel_values: Tensor | None = None,
        aspect_ratio_ids: Tensor | None = None,
        aspect_ratio_mask: Tensor | None = None,
        cross_attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """Return the output of the language model. Its cache holds the images that later tokens see.

        Args:
            input_ids: `[R, S]` long, with one token per image.
            position_ids: `[R, S]` long.
            past_key_values: a cache that an earlier pass of this decoder returned.
            pixel_values: `[rows with images, N, tiles, 3, height, width]`.
            aspect_ratio_ids: `[rows with images, N]` long; 0 for images that only pad a row.
            aspect_ratio_mask: `[rows with images, N, tiles]` long; 0 for tiles that only pad an image.
            cross_attention_mask: not used: the tokens give it.
            others: further arguments of the language model.
        """
        states: Tensor | None = None
        if past_key_values is not None:
            sight = _cached_sight(past_key_values)
        elif pixel_values is None or aspect_ratio_ids is None or aspect_ratio_mask is None:
            # One vision token of 0, so that attention adds 0; and no token sees an image.
            shown = torch.zeros(input_ids.shape, dtype=torch.bool, device=input_ids.device)
            states = torch.zeros((len(input_ids), 1, self._model.hidden_size), device=input_ids.device)
            sight = _Sight(~shown[..., None], shown)
        else:
            rows = (input_ids == self.config.image_token_id).any(-1).nonzero().flatten()
            states = self._states(rows, len(input_ids), pixel_values, aspect_ratio_ids, aspect_ratio_mask)
            sight = self._sight(input_ids, rows, aspect_ratio_ids, aspect_ratio_mask)
        output = self._model.language_model(
            input_ids=input_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            cross_attention_states=states,
            **sight.masks(self.config),
            **others,
        )
        if states is not None and output.past_key_values is not None:
            layers = output.past_key_values.layers
            for index in self._model.language_model.cross_attention_layers:
                layers[index] = _VisionLayer(layers[index], sight.of_next_token())
        return output

    __call__ = forward

    def _states(self, rows: Tensor, count: int, pixels: Tensor, ratios: Tensor, tiles: Tensor) -> Tensor:
        """Return the vision tokens of all rows, `[R, M, D]`; 0 for rows without images. rows: those with images."""
        patches = self._model.vision_model(pixel_values=pixels, aspect_ratio_ids=ratios, aspect_ratio_mask=tiles)
        states = self._model.multi_modal_projector(patches.last_hidden_state).flatten(1, -2)
        whole: Tensor = states.new_zeros((count, *states.shape[1:])).index_copy(0, rows, states)
        return whole

    def _sight(self, input_ids: Tensor, rows: Tensor, ratios: Tensor, tiles: Tensor) -> _Sight:
        """Return which vision tokens each token attends to.

        A token sees an image from the image's token on, until the next one; images side by side are seen together. A
        token that sees none attends to all vision tokens of its row, as in transformers.
        """
        count, images = len(input_ids), ratios.shape[1]
        own = ratios.new_zeros((count, images)).index_copy(0, rows, ratios) != 0  # [R, N]
        inside = tiles.new_zeros((count, *tiles.shape[1:])).index_copy(0, rows, tiles) != 0  # [R, N, tiles]
        marks = input_ids == self.config.image_token_id
        number = marks.cumsum(-1)  # [R, S], images so far
        run = (marks & ~pad(marks, (1, 0))[:, :-1]).cumsum(-1)  # [R, S], runs of adjacent images so far
        run_of = run.new_zeros((count, images))  # of each image
        row, place = marks.nonzero(as_tuple=True)
        run_of[row, number[row, place] - 1] = run[row, place]
        order = torch.arange(1, images + 1, device=input_ids.device)
        seen = (number[..., None] >= order) & (run[..., None] == run_of[:, None])  # [R, S, N]
        attended = seen[..., None] & inside[:, None]  # [R, S, N, tiles]
        shown = attended.flatten(2).any(-1)
        instead = own | ~own.any(-1, keepdim=True)  # a row without images attends to values of 0
        attended = attended | (~shown[..., None, None] & instead[:, None, :, None])
        return _Sight(attended.flatten(2).repeat_interleave(self._model.vision_model.num_patches, -1), shown)


@dataclass(frozen=True)
class _Sight:
    """The images that tokens see in their rows."""

    attended: Tensor  # [R, S, M] bool: vision tokens that the token attends to
    shown: Tensor  # [R, S] bool: the token sees an image

    def masks(self, config: Any) -> dict[str, Tensor]:
        """Return the arguments of transformers' language model."""
        return {
            "cross_attention_mask": mask_for(config, self.attended[:, None]),
            "full_text_row_masked_out_mask": self.shown[:, None, :, None].float(),
        }

    def of_next_token(self) -> _Sight:
        """Return the sight of the tokens that follow the last ones."""
        return _Sight(self.attended[:, -1:], self.shown[:, -1:])

    def of_rows(self, rows: Tensor) -> _Sight:
        """Return these rows `[R]`, which can repeat."""
        return _Sight(self.attended[rows], self.shown[rows])


class _VisionLayer(DynamicLayer):
    """Keys and values of the vision tokens, with the sight of the next token."""

    _layer_type = None  # not registered as transformers' layer of an attention type

    def __init__(self, layer: Any, sight: _Sight) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values, self.sight = layer.keys, layer.values, sight

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep only these rows."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]  # the hint names a class that no tensor has
        self.sight = self.sight.of_rows(beam_idx)


def _cached_sight(cache: Cache) -> _Sight:
    return next(layer.sight for layer in cache.layers if isinstance(layer, _VisionLayer))
