"""Models and their processors, from wherever a config says they come. Never runs code that comes with a model."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from calibrl_core.config import BuiltinModel, ModelSource
from calibrl_core.models.errors import ModelError, listed

# Buffers that older files hold and that the model computes itself.
_COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|attn\.masked_bias)$")
_ADVICE = "get the model's files again, or correct its config"


def load_model(source: ModelSource) -> tuple[Any, Any]:
    """A model of transformers in float32 on the CPU, and its processor (for a text model: its tokenizer).

    Raises ModelError where the source is not there, is neither a causal text nor an image-text model, or its files do
    not hold exactly the tensors of the model; OSError where a model of the hub can't be fetched.
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
    return _whole(auto, path, path, use_safetensors=True), reader.from_pretrained(path, trust_remote_code=False)


def _from_gguf(path: Path) -> tuple[Any, Any]:
    """A text model's quantised weights as float32, in a model that no longer remembers having been quantised: one that
    does refuses to be saved."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = _whole(AutoModelForCausalLM, path.parent, path, gguf_file=path.name)
    _check_layers(path, quantised.config.num_hidden_layers)
    config = quantised.config
    del config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    return model_of(quantised, quantised.state_dict()), tokenizer


def _whole(auto: Any, folder: str | Path, named: str | Path, **options: Any) -> Any:
    """The model of `folder` in float32, each of whose tensors came from its files. `named`: what messages call it.

    Raises:
        ModelError: files are missing or damaged, or hold other tensors than the config asks for.
    """
    try:
        # Other shapes are let through here, to be in the message with everything else.
        model, info = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except SafetensorError as error:
        raise ModelError(f"{named}: a weights file is damaged ({error}); {_ADVICE}") from error
    except RuntimeError as error:
        if "automatic conversion" not in str(error):  # of one expert's tensors into those of all experts
            raise
        raise ModelError(f"{named}: tensors are missing or of different shapes within a layer; {_ADVICE}") from error
    except OSError as error:
        if not Path(folder).is_dir() or (error.errno is not None and not isinstance(error, FileNotFoundError)):
            raise
        raise ModelError(f"{named}: {' '.join(str(error).split())}; {_ADVICE}") from error
    _check_loaded(named, info)
    return model


def _check_loaded(path: str | Path, info: dict[str, Any]) -> None:
    """Refuse a model of which transformers reports tensors that its files lack, add, or hold in another shape; what its
    class declares as harmless is not in `info`."""
    missing, unexpected = info["missing_keys"], {one for one in info["unexpected_keys"] if not _COMPUTED.search(one)}
    shapes = {f"{name} {tuple(found)} for {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]}
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{kind}: {listed(names)}" for kind, names in kinds if names]
    if not problems:
        return
    prefix = _prefix(missing, unexpected)
    advice = f"save the model again with names that do not begin with {prefix}" if prefix else _ADVICE
    raise ModelError(f"{path}: the tensors in its files are not those of its config; {'; '.join(problems)}; {advice}")


def _prefix(missing: Collection[str], unexpected: Collection[str]) -> str:
    """Return what all unexpected names have before the name of a missing tensor; empty if there is no such prefix."""
    shortest = min(unexpected, key=len, default="")
    for name in missing:
        prefix = shortest.removesuffix(name)
        if prefix != shortest and all(one.removeprefix(prefix) in missing for one in unexpected):
            return prefix
    return ""


def _check_layers(path: Path, layers: int) -> None:
    """Refuse a GGUF file with tensors of more layers than its metadata count: transformers drops those unseen."""
    from gguf import GGUFReader

    names = [tensor.name for tensor in GGUFReader(path).tensors]
    _check_loaded(
        path,
        {
            "missing_keys": set(),
            "unexpected_keys": {one for one in names if one.startswith("blk.") and int(one.split(".")[1]) >= layers},
            "mismatched_keys": set(),
        },
    )


def model_of(like: Any, state: dict[str, Tensor]) -> Any:
    """A model of the class and config of `like` that holds the tensors of `state`, without copying them."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model: Any = type(like)(like.config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = like.generation_config
    return model
