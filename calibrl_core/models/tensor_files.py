"""Tensors in safetensors files of limited size: written as they come, so that one file at a time is in memory, and read
in parts.

    model.safetensors                         one file, or
    model-00001-of-00003.safetensors, ...     several, and model.safetensors.index.json with the file of each tensor
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE_BYTES = 2 * 10**9  # a tensor that is larger has a file of its own


def write_tensors(
    folder: Path,
    stem: str,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
    file_bytes: int | None = None,
) -> None:
    """Write named tensors to `folder`; `metadata` goes into each file. Copies on the CPU are held only until their file
    is complete. `file_bytes`: largest size of a file; None: `FILE_BYTES`.
    """
    limit = file_bytes or FILE_BYTES
    names: list[list[str]] = []  # of each file
    total = 0

    def flush(held: Mapping[str, Tensor]) -> None:
        names.append(list(held))
        save_tensors(held, folder / f"{stem}-{len(names):05d}.safetensors", metadata)

    held: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            flush(held)
            held, size = {}, 0
        held[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    if held or not names:
        flush(held)
    if len(names) == 1:
        (folder / f"{stem}-00001.safetensors").rename(folder / f"{stem}.safetensors")
        return
    files: dict[str, str] = {}
    for number, members in enumerate(names, 1):
        file = f"{stem}-{number:05d}-of-{len(names):05d}.safetensors"
        (folder / f"{stem}-{number:05d}.safetensors").rename(folder / file)
        files |= dict.fromkeys(members, file)
    index = {"metadata": {"total_size": total}, "weight_map": files}
    _index(folder, stem).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write one file, which others can read if they can read its folder: safetensors permits its owner only."""
    save_file(dict(tensors), path, metadata=dict(metadata))
    path.chmod(path.parent.stat().st_mode & 0o666)


class TensorFiles:
    """The files that `write_tensors` wrote, opened to read single tensors or parts of them."""

    def __init__(self, folder: Path, stem: str) -> None:
        """Open the files.

        Raises:
            FileNotFoundError: a file is missing.
            SafetensorError: a file is damaged.
        """
        self._open = ExitStack()
        self._files: dict[str, Any] = {}  # by the name of the tensor
        index = _index(folder, stem)
        paths = [folder / f"{stem}.safetensors"]
        if index.is_file():
            paths = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        for path in paths:
            file = self._open.enter_context(safe_open(path, "pt"))
            self.metadata: Mapping[str, str] = file.metadata() or {}
            self._files |= dict.fromkeys(file.keys(), file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def names(self) -> list[str]:
        """Return the names of all tensors."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Return a whole tensor."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def read_rows(self, name: str, start: int, count: int) -> Tensor:
        """Return `count` entries of the first axis, from `start`."""
        tensor: Tensor = self._files[name].get_slice(name)[start : start + count]
        return tensor


def _index(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.safetensors.index.json"
