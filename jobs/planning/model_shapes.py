"""Tensor shapes of a model without loading it: from the headers of its safetensors, or from its config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 20_000_000
MOST_LAYERS = 1000
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Model types whose config.json determines every tensor. Others need their safetensors.
COUNTED_TYPES = ("llama", "mistral", "qwen2", "qwen3")
VISION = frozenset(
    {"vision_model", "vision_tower", "visual", "vision_embed_tokens", "connector", "multi_modal_projector", "aligner"}
)
Shapes = dict[str, tuple[int, ...]]


class UnknownShape(Exception):
    """The tensor shapes of the model cannot be determined here. The message has the reason. `text_model`: it is known
    to take no images.
    """

    def __init__(self, reason: str, *, text_model: bool = False) -> None:
        super().__init__(reason)
        self.text_model = text_model


@dataclass(frozen=True)
class ModelShape:
    """Tensor shapes of a model by name, and the parts of its config that matter for memory. `longest`: number of
    positions. `takes_images`: it has a vision tower."""

    shapes: Mapping[str, tuple[int, ...]]
    source: str
    layers: int
    hidden: int
    kv_width: int
    intermediate: int
    vocabulary: int
    longest: int
    takes_images: bool

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.shapes.values()))

    @property
    def largest(self) -> int:
        """Number of parameters of the largest tensor."""
        return max(map(prod, self.shapes.values()))

    @property
    def in_layers(self) -> int:
        """Number of parameters in the layers of the language model."""
        numbered = (
            prod(shape)
            for name, shape in self.shapes.items()
            if not is_vision(name) and any(part.isdecimal() for part in name.split("."))
        )
        return sum(numbered)

    @property
    def vision(self) -> int:
        """Number of parameters of the vision tower and its projection."""
        return sum(prod(shape) for name, shape in self.shapes.items() if is_vision(name))

    @property
    def head(self) -> int:
        """Number of parameters of the output layer; 0 if it is the embedding."""
        return sum(prod(shape) for name, shape in self.shapes.items() if "lm_head" in name.split("."))

    @property
    def linear(self) -> Shapes:
        """Weights of linear layers, without the output layer."""
        return {
            name: shape
            for name, shape in self.shapes.items()
            if len(shape) == 2 and not {"embed_tokens", "lm_head", "wte", "position_embedding"} & {*name.split(".")}
        }


def is_vision(name: str) -> bool:
    """Return True if a tensor belongs to the vision tower or its projection."""
    return bool(VISION & {*name.split(".")})


def tiny_vlm() -> ModelShape:
    """Return the shape of the built-in model: language part from its config, vision part counted."""
    text = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 384,
        "max_position_embeddings": 512,
    }
    return _shape({"model.vision_model": (408_192,), **_counted(text)}, text, "the built-in model")


def of_folder(folder: Path) -> ModelShape:
    """Return the shape of a saved model.

    Raises:
        UnknownShape: the files do not determine it.
    """
    if folder.suffix == ".gguf":
        raise UnknownShape("tensors of .gguf files are not read here", text_model=True)
    try:
        files = [folder / "config.json", *_weight_files(folder)]
        changed = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return _of_folder(folder, changed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnknownShape(f"{folder} cannot be read: {type(error).__name__}: {error}") from error


@lru_cache(64)
def _of_folder(folder: Path, files: tuple[tuple[str, int, int], ...]) -> ModelShape:
    config = _json((folder / "config.json").read_bytes())
    text = {**config, **(config.get("text_config") or {})}
    headers: Shapes = {}
    for path, _, _ in files[1:]:
        headers |= _header(Path(path))
    if headers:
        return _shape(headers, text, "its safetensors' headers")
    if "vision_config" in config or text.get("model_type") not in COUNTED_TYPES:
        raise UnknownShape(f"there are no safetensors, and config.json is not sufficient for {text.get('model_type')}")
    return _shape(_counted(text), text, "config.json")


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    names = set(_json((folder / INDEX).read_bytes())["weight_map"].values())
    return [folder / Path(name).name for name in sorted(names)]  # only in this folder, whatever the index says


def _json(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError("the file is too large")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("the file is not a JSON object")
    return content


def _header(path: Path) -> Shapes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} is not a safetensors file")
        entries = _json(file.read(length))
    return {name: tuple(map(int, entry["shape"])) for name, entry in entries.items() if name != "__metadata__"}


def _counted(config: Mapping[str, Any]) -> Shapes:
    """Return the tensor shapes of a language model of one of the types in COUNTED."""
    kind, hidden, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    width, kv_width = heads * size, (config.get("num_key_value_heads") or heads) * size
    layer: Shapes = {f"self_attn.{name}_proj.weight": (kv_width, hidden) for name in "kv"}
    layer |= {"self_attn.q_proj.weight": (width, hidden), "self_attn.o_proj.weight": (hidden, width)}
    layer |= {f"mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
    layer |= {"mlp.down_proj.weight": (hidden, inner)}
    layer |= {f"{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    if kind == "qwen2" or config.get("attention_bias"):
        layer |= {"self_attn.q_proj.bias": (width,), **{f"self_attn.{name}_proj.bias": (kv_width,) for name in "kv"}}
        layer |= {} if kind == "qwen2" else {"self_attn.o_proj.bias": (hidden,)}
    if config.get("mlp_bias"):
        layer |= {"mlp.gate_proj.bias": (inner,), "mlp.up_proj.bias": (inner,), "mlp.down_proj.bias": (hidden,)}
    if kind == "qwen3":
        layer |= {f"self_attn.{name}_norm.weight": (size,) for name in "qk"}
    if not 0 < config["num_hidden_layers"] <= MOST_LAYERS:
        raise UnknownShape(f"num_hidden_layers of the config is not from 1 to {MOST_LAYERS}")
    layers = range(config["num_hidden_layers"])
    shapes = {f"model.layers.{number}.{name}": shape for number in layers for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _shape(shapes: Shapes, config: Mapping[str, Any], source: str) -> ModelShape:
    """Return the shape from the tensors if possible, because a saved config omits defaults; else from the config."""

    def size(ending: str, axis: int, *fields: str) -> int | None:
        for name, shape in shapes.items():
            if name.endswith(f"{ending}.weight") and not is_vision(name):
                return shape[axis]
        return next((int(config[field]) for field in fields if config.get(field)), None)

    hidden = size("embed_tokens", 1, "hidden_size", "n_embd", "d_model")
    numbers = {int(part) for name in shapes if not is_vision(name) for part in name.split(".") if part.isdecimal()}
    if hidden is None or not numbers:
        raise UnknownShape("its tensors and its config.json do not determine width and depth")
    return ModelShape(
        shapes=shapes,
        source=source,
        layers=max(numbers) + 1,
        hidden=hidden,
        kv_width=size("k_proj", 0) or hidden,
        intermediate=size("up_proj", 0, "intermediate_size", "n_inner") or 4 * hidden,
        vocabulary=size("embed_tokens", 0, "vocab_size") or 0,
        longest=int(config.get("max_position_embeddings") or 0),
        takes_images="vision_config" in config or any(map(is_vision, shapes)),
    )
