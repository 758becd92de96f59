"""A key-value cache that has room to grow, where transformers' copies itself whole at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE_TOKENS = 64  # room added at once


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, `[R, heads, length, size]`, in front of spare room; `limit` tokens at most."""

    _layer_type = None  # not the one that transformers makes for a kind of attention
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._rooms, self._limit = [keys, values], limit
        self._show(keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = (room[..., :length, :] for room in self._rooms)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append, and return all. See `DynamicLayer.update`."""
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._rooms[0].shape[-2]:
            spare = min(end + SPARE_TOKENS, self._limit) - start
            self._rooms = [_with_room(shown, spare) for shown in (self.keys, self.values)]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., start:end, :] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        length = self.keys.shape[-2]
        self._rooms = [room[indices] for room in self._rooms]
        self._show(length)


def _with_room(shown: Tensor, tokens: int) -> Tensor:
    rows, heads, _, size = shown.shape
    return torch.cat([shown, shown.new_empty((rows, heads, tokens, size))], dim=-2)


def with_spare_capacity(cache: Cache, repeats: int, new_tokens: int) -> Cache:
    """`cache` with each row `repeats` times, ready for up to `new_tokens` small updates."""
    cache.batch_repeat_interleave(repeats)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[index] = GrowingLayer(layer.keys, layer.values, layer.keys.shape[-2] + new_tokens)
    return cache
