"""Loads models and their processors from all sources of a config. Never runs code that comes with a model."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import calibrl_core.models.hidden_packages  # noqa: F401

# isort: split
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from calibrl_core.config import BuiltinModel, ModelSource
from calibrl_core.models.attention import set_kernels
from calibrl_core.models.errors import ModelError, first_names
from calibrl_core.models.processors import load_processor, load_tokenizer

# Buffers in older files that the model computes itself.
_COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|attn\.masked_bias)$")
_ADVICE = "download the model's files again, or correct its config"


def load_model(source: ModelSource, *, mapped: bool = False) -> tuple[Any, Any]:
    """Return a transformers model in float32 on the CPU, and its processor (of a text model: its tokenizer).

    mapped: leave the weights in the dtype of their files, as views of these files: they take no memory until they are
    copied. Weights that the model holds in another form than the files, such as stacked experts, are copies.

    Its attention is that of `source.attention` and `source.vision_attention`.

    Raises:
        ModelError: the source does not exist, is neither a causal text nor an image-text model, or its files do not
            hold exactly the tensors of the model; or its processor needs a package that is not installed.
        OSError: a model cannot be downloaded from the hub.
    """
    model, processor = _loaded(source, mapped)
    set_kernels(model, source)
    return model, processor


def _loaded(source: ModelSource, mapped: bool) -> tuple[Any, Any]:
    if isinstance(source, BuiltinModel):
        from calibrl_core.models.tiny import build_tiny_vlm

        return build_tiny_vlm(source.seed)
    path = Path(source.path)
    if path.is_absolute() and not (path if path.suffix == ".gguf" else path / "config.json").is_file():
        raise ModelError(f"model.path: {path} is neither a .gguf file nor the folder of a saved model")
    return _from_gguf(path) if path.suffix == ".gguf" else _from_folder(source.path, mapped)


def load_model_processor(path: str) -> Any:
    """Return the processor of a model without its weights; of a text model: its tokenizer. `path`: as of a source, or
    the name of the built-in model.

    Raises:
        ModelError, OSError: as `load_model`; and a .gguf file has no processor of its own.
    """
    if path == BuiltinModel(builtin="tiny-vlm").builtin:
        from calibrl_core.models.tiny import build_tiny_vlm

        return build_tiny_vlm(0)[1]
    if Path(path).suffix == ".gguf":
        raise ModelError(f"{path}: name the folder of the model, not a .gguf file")
    return _class_and_processor(path)[1]


def _class_and_processor(path: str) -> tuple[Any, Any]:
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except ValueError as error:  # of transformers: the kind is unknown, or known only to code that comes with it
        raise ModelError(
            f"{path}: this version of transformers does not know the kind of this model, and code that comes with a "
            "model never runs; choose another model, or a version in the format of transformers"
        ) from error
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText, load_processor(path, config)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM, load_tokenizer(path)
    raise ModelError(f"{path}: {config.model_type} is neither a causal text model nor an image-text model")


def _from_folder(path: str, mapped: bool) -> tuple[Any, Any]:
    # The processor first: it loads in a second, and weights can take minutes.
    auto, processor = _class_and_processor(path)
    # No pickles: weights are safetensors.
    dtype = _file_dtype(path) if mapped else torch.float32
    model = _load_checked(auto, path, path, use_safetensors=True, dtype=dtype)
    model = model if dtype == torch.float32 else _with_float32_buffers(model)
    return model, processor


def _file_dtype(path: str) -> torch.dtype:
    """Return the dtype of all weights in a model's files; float32 if they have several, so that none loses digits, or
    if a file cannot be read: then the load gives the reason.
    """
    from transformers.utils.hub import cached_file

    def found(name: str) -> str | None:
        return cached_file(path, name, _raise_exceptions_for_missing_entries=False)

    index = found("model.safetensors.index.json")
    names = set(json.loads(Path(index).read_text())["weight_map"].values()) if index else {"model.safetensors"}
    dtypes = set()
    try:
        for file in filter(None, map(found, names)):
            with safe_open(file, "pt") as opened:
                dtypes |= {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError:
        return torch.float32
    return {("BF16",): torch.bfloat16, ("F16",): torch.float16}.get(tuple(dtypes), torch.float32)


def _with_float32_buffers(loaded: Any) -> Any:
    """Return the model with the weights of `loaded`, and with the buffers that it computes itself in float32."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    config = loaded.config
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = torch.float32
    with init_empty_weights(include_buffers=False):
        model: Any = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config, model._weight_conversions = loaded.generation_config, loaded._weight_conversions
    return model


def _from_gguf(path: Path) -> tuple[Any, Any]:
    """Return a text model with its quantised weights as float32, without its quantisation settings, which would prevent
    saving it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = _load_checked(AutoModelForCausalLM, path.parent, path, gguf_file=path.name)
    _check_layers(path, quantised.config.num_hidden_layers)
    config = quantised.config
    del config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    return model_from_state(quantised, quantised.state_dict()), tokenizer


def _load_checked(
    auto: Any, folder: str | Path, named: str | Path, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """Return the model of `folder`, with every tensor from its files. `named`: its name in messages.

    Raises:
        ModelError: files are missing or damaged, or hold other tensors than the config requires.
    """
    try:
        # Other shapes are accepted here, so that one message can report all problems.
        model, info = auto.from_pretrained(
            folder,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            **options,
        )
    except SafetensorError as error:
        raise ModelError(f"{named}: a weights file is damaged ({error}); {_ADVICE}") from error
    except RuntimeError as error:
        if "automatic conversion" not in str(error):  # conversion of tensors per expert into tensors of all experts
            raise
        raise ModelError(f"{named}: tensors are missing or of different shapes within a layer; {_ADVICE}") from error
    except OSError as error:
        if not Path(folder).is_dir() or (error.errno is not None and not isinstance(error, FileNotFoundError)):
            raise
        raise ModelError(f"{named}: {' '.join(str(error).split())}; {_ADVICE}") from error
    _check_loaded(named, info)
    return model


def _check_loaded(path: str | Path, info: dict[str, Any]) -> None:
    """Check what transformers reports about missing, unexpected and mismatched tensors. Differences that the model's
    class declares as harmless are not in `info`.

    Raises:
        ModelError: some tensors are missing, unexpected or of another shape.
    """
    missing, unexpected = info["missing_keys"], {one for one in info["unexpected_keys"] if not _COMPUTED.search(one)}
    shapes = {f"{name} {tuple(saved)} for {tuple(expected)}" for name, saved, expected in info["mismatched_keys"]}
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{kind}: {first_names(names)}" for kind, names in kinds if names]
    if not problems:
        return
    prefix = _prefix(missing, unexpected)
    advice = f"save the model again with names that do not begin with {prefix}" if prefix else _ADVICE
    raise ModelError(f"{path}: the tensors in its files are not those of its config; {'; '.join(problems)}; {advice}")


def _prefix(missing: Collection[str], unexpected: Collection[str]) -> str:
    """Return the prefix that all unexpected names have before the name of a missing tensor, or an empty text."""
    shortest = min(unexpected, key=len, default="")
    for name in missing:
        prefix = shortest.removesuffix(name)
        if prefix != shortest and all(one.removeprefix(prefix) in missing for one in unexpected):
            return prefix
    return ""


def _check_layers(path: Path, layers: int) -> None:
    """Check that a GGUF file has no tensors of more layers than its metadata count: transformers drops these silently.

    Raises:
        ModelError: the file has such tensors.
    """
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


def model_from_state(like: Any, state: dict[str, Tensor]) -> Any:
    """Return a model of the class and config of `like` that holds the tensors of `state`, without copying them."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model: Any = type(like)(like.config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = like.generation_config
    return model
