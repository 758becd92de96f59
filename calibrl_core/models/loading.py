"""Models and their processors, from wherever a config says they come. Never runs code that comes with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calibrl_core.config import BuiltinModel, ModelSource
from calibrl_core.models.errors import ModelError


def load_model(source: ModelSource) -> tuple[Any, Any]:
    """A model of transformers in float32 on the CPU, and its processor (for a text model: its tokenizer).

    Raises ModelError where the source is not there, or is neither a causal text nor an image-text model; OSError where
    files of it are missing.
    """
    if isinstance(source, BuiltinModel):
        from calibrl_core.models.tiny import build_tiny_vlm

        return build_tiny_vlm(source.seed)
    path = Path(source.path)
    if path.is_absolute() and not (path if path.suffix == ".gguf" else path / "config.json").is_file():
        raise ModelError(f"model.path: {path} is neither a .gguf file nor the folder of a saved model")
    return _from_gguf(path) if path.suffix == ".gguf" else _from_folder(source.path)


def _from_folder(path: str) -> tuple[Any, Any]:
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    auto: Any
    reader: Any
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        auto, reader = AutoModelForImageTextToText, AutoProcessor
    elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        auto, reader = AutoModelForCausalLM, AutoTokenizer
    else:
        raise ModelError(f"{path}: {config.model_type} is neither a causal text model nor an image-text model")
    # No pickles: weights come as safetensors.
    model = auto.from_pretrained(path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    return model, reader.from_pretrained(path, trust_remote_code=False)


def _from_gguf(path: Path) -> tuple[Any, Any]:
    """A text model's quantised weights as float32, in a model that no longer remembers having been quantised: one that
    does refuses to be saved."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
    )
    config = quantised.config
    del config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    return model_of(quantised, quantised.state_dict()), tokenizer


def model_of(like: Any, state: dict[str, Tensor]) -> Any:
    """A model of the class and config of `like` that holds the tensors of `state`, without copying them."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model: Any = type(like)(like.config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = like.generation_config
    return model
