"""A key-value cache with spare capacity; transformers' cache copies itself at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE_TOKENS = 64  # capacity added at a time


class GrowingLayer(DynamicLayer):
    """Keys and values of a layer, `[R, heads, length, size]`, with spare capacity; at most `limit` tokens."""

    _layer_type = None  # not registered as transformers' layer of an attention type
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._buffers, self._limit = [keys, values], limit
        self._set_length(keys.shape[-2])

    def _set_length(self, length: int) -> None:
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all of them. See `DynamicLayer.update`."""
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            spare = min(end + SPARE_TOKENS, self._limit) - start
            self._buffers = [_extend(shown, spare) for shown in (self.keys, self.values)]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self._set_length(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep only these rows."""
        length = self.keys.shape[-2]
        self._buffers = [buffer[beam_idx] for buffer in self._buffers]
        self._set_length(length)


def _extend(shown: Tensor, tokens: int) -> Tensor:
    rows, heads, _, size = shown.shape
    return torch.cat([shown, shown.new_empty((rows, heads, tokens, size))], dim=-2)


def with_spare_capacity(cache: Cache, rows: Tensor, new_tokens: int, *, bfloat16: bool = False) -> Cache:
    """Return `cache` with its rows `rows` `[R]`, which can repeat, and with capacity for up to `new_tokens` more.

    bfloat16: keep keys and values in it. Autocast would convert them at each token: positions make them float32.
    """
    for layer in cache.layers:
        if bfloat16 and type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            layer.keys, layer.values = layer.keys.bfloat16(), layer.values.bfloat16()
    select_rows(cache, rows)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[index] = GrowingLayer(layer.keys, layer.values, layer.keys.shape[-2] + new_tokens)
    return cache


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Replace the rows of `cache` by its rows `rows` `[R]` long, which can repeat."""
    # Layers of linear attention have no other method that repeats or selects the rows of their states.
    cache.reorder_cache(rows)  # type: ignore[arg-type]  # the hint names a class that no tensor has
