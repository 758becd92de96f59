"""Selects trainable parameters: low-rank adapters (LoRA, arXiv 2106.09685), everything except the vision
tower, or all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from calibrl_core.config import LoraSettings, ModelOptions
from calibrl_core.models.errors import ModelError
from calibrl_core.models.hidden_packages import hide
from calibrl_core.models.quantisation import QuantisedLinear, parameter_count
from calibrl_core.models.tensor_files import save_tensors

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

FOLDER = "adapter"  # in a checkpoint's folder, next to the merged model
FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."  # prefix of tensor names in that file, as peft writes it
_ADAPTER = ".default."  # peft's name of the only adapter, in the names of its tensors
_NORMS = "lora_magnitude_vector"  # peft's name of DoRA's row norms
_STATE_SPACES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")  # kinds of models
_OF_STATE_SPACES = frozenset(("out_proj", "conv1d"))  # layers whose weights their kernels read directly
_OF_EXPERTS = frozenset(("gate_proj", "up_proj", "down_proj"))  # also names of experts, which are no linear layers
_SEED = 0  # of the adapters' initial weights, which have no effect until training changes them


def prepare_model(model: Any, options: ModelOptions) -> None:
    """Freeze parameters, add adapters and set up gradient checkpointing as `options` require.

    Raises:
        ModelError: the model has no part that an option names. The message names the field.
    """
    if options.freeze_vision:
        _freeze_vision(model)
    if options.lora is not None:
        _add_lora(model, options.lora, language_only=options.freeze_vision)
    if options.recomputes(parameter_count(model)):
        _recompute_layers(model, required=options.gradient_checkpointing is True)


def _recompute_layers(model: nn.Module, *, required: bool) -> None:
    """Let the layers recompute their activations in the backward pass. required: at least one layer must be able to.

    transformers recomputes in train mode only, and a policy stays in eval mode.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if required and not layers:
        raise ModelError("gradient_checkpointing: this model has no layers that can recompute; leave the field out")
    for layer in layers:
        layer.forward = partial(_forward_recomputed, layer.forward)


def _forward_recomputed(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)


def _freeze_vision(model: Any) -> None:
    language = {*model.get_decoder().parameters(), *model.get_output_embeddings().parameters()}
    language.add(model.get_input_embeddings().weight)
    vision = [parameter for parameter in model.parameters() if parameter not in language]
    if not vision:
        raise ModelError("freeze_vision: this model has no vision tower; leave the field out")
    for parameter in vision:
        parameter.requires_grad_(False)


def _add_lora(model: Any, settings: LoraSettings, *, language_only: bool) -> None:
    hide("bitsandbytes", _peft_finds_bitsandbytes)
    from peft import LoraConfig, import_utils, inject_adapter_in_model

    hide("torchao", import_utils.is_torchao_available)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft accepts floats: it only divides by the rank
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=_targets(model, settings.targets, language_only=language_only),
        base_model_name_or_path=model.name_or_path or None,
        **_class_for_peft(model),
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        # In place, without a wrapper: every use of the model, also by the sampler, includes the adapters.
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:  # peft gives them the dtype of the weight, which can still be that of its file
            parameter.data = parameter.data.float()
    for layer in lora_layers(model).values() if settings.dora else ():
        # In float32, also if the weight is still in the dtype of its file, in which peft computes the norms.
        norms = cast(Tensor, layer.get_base_layer().weight).detach().float().norm(dim=1)  # [out]
        layer.lora_magnitude_vector["default"].weight = nn.Parameter(norms)


def _peft_finds_bitsandbytes() -> bool:
    from peft import import_utils  # asks already when it is imported

    return import_utils.is_bnb_available()


def _class_for_peft(model: Any) -> dict[str, Any]:
    """Return the fields by which peft finds the class of the base model: `AutoPeftModelForCausalLM` reads a task,
    `AutoPeftModel` a class. No task of peft means image and text.
    """
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(model.config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return {"task_type": "CAUSAL_LM"}
    return {"auto_mapping": {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}}


def _targets(model: Any, targets: tuple[str, ...], *, language_only: bool) -> list[str]:
    """Return full names of the linear layers that get an adapter: those with the given names, or all of the language
    model. `language_only`: of the layers with the given names only those of the language model.
    """
    if not targets:
        return language_layers(model)
    head, language = model.get_output_embeddings(), set(model.get_decoder().modules())
    linear, refused = _linear_layers(model), _refused_names(model)
    chosen = []
    for target in targets:
        called = [name for name in linear if f".{name}".endswith(f".{target}")]
        if not called:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ModelError(f"lora.targets: no linear layer is called {target}; choose from {', '.join(known)}")
        if target.rpartition(".")[2] in refused:
            raise ModelError(f"lora.targets: peft cannot adapt {target} in {model.config.model_type}; remove it")
        if any(linear[name] is head for name in called):
            raise ModelError(f"lora.targets: {target} is the output layer, which cannot have an adapter; remove it")
        if language_only:
            called = [name for name in called if linear[name] in language]
        if not called:
            raise ModelError(
                f"lora.targets: {target} is a layer of the vision tower or its projection, which freeze_vision keeps "
                "as they are; remove it, or remove freeze_vision"
            )
        chosen += called
    return chosen


def language_layers(model: Any) -> list[str]:
    """Return full names of the linear layers of the language model, without the output layer.

    Raises:
        ModelError: there are none.
    """
    head, language, refused = model.get_output_embeddings(), set(model.get_decoder().modules()), _refused_names(model)
    chosen = [
        name
        for name, module in _linear_layers(model).items()
        if module in language and module is not head and name.rpartition(".")[2] not in refused
    ]
    if not chosen:
        raise ModelError("lora: this model's language part has no linear layers (torch.nn.Linear) to adapt")
    return chosen


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers by full name. Not subclasses with another forward pass, such as the router of Llama 4,
    which returns more than one tensor.
    """
    plain = (nn.Linear.forward, QuantisedLinear.forward)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module).forward in plain
    }


def _refused_names(model: Any) -> frozenset[str]:
    """Return the names of linear layers that peft refuses, or that it takes for parameters of experts: those would be
    adapted in place of the layer.
    """
    refused = _OF_STATE_SPACES if model.config.model_type in _STATE_SPACES else frozenset()
    if any(".experts." in name and parameter.ndim == 3 for name, parameter in model.named_parameters()):
        refused |= _OF_EXPERTS
    return refused


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """Return the layers that have an adapter, by name."""
    if not any(".lora_A." in name for name, _ in model.named_parameters()):
        return {}  # avoids the import of peft
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@dataclass(frozen=True)
class Adapters:
    """Facts on the adapters of a model."""

    layers: int  # that have one
    rank: int
    dora: bool
    language_only: bool  # no layer is in the vision tower or its projection


def described(model: Any, layers: Mapping[str, LoraLayer]) -> Adapters:
    """Return facts on the adapters of a model. `layers`: those that have one."""
    settings = model.peft_config["default"]
    return Adapters(len(layers), settings.r, settings.use_dora, {*layers} <= _language_names(model))


def _language_names(model: Any) -> set[str]:
    language = set(model.get_decoder().modules())
    return {name for name, module in model.named_modules() if module in language}


@contextmanager
def adapters_off(layers: Mapping[str, LoraLayer]) -> Iterator[None]:
    """Run the model without its adapters."""
    for layer in layers.values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.enable_adapters(True)


@contextmanager
def adapters_dropping(layers: Mapping[str, LoraLayer], seed: Sequence[int]) -> Iterator[None]:
    """Run the model with the dropout of its adapters (`LoraSettings.dropout`), by random numbers of `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1)[0]))
        modules = [cast(nn.Module, layer) for layer in layers.values()]
        for module in modules:
            module.train()
        try:
            yield
        finally:
            for module in modules:
                module.eval()


def merge_adapters(state: Mapping[str, Tensor], layers: Mapping[str, LoraLayer]) -> dict[str, Tensor]:
    """Return the tensors of an equivalent model without adapters: W' = W + scaling B A for each adapted W `[out, in]`;
    with DoRA each row of W' scaled to its trained norm (arXiv 2402.09353, equation 5).
    """
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}
    for name, layer in layers.items():
        down, up = (state[f"{name}.lora_{part}{_ADAPTER}weight"].float() for part in "AB")  # [r, in], [out, r]
        weight = plain[f"{name}.weight"].float() + layer.scaling["default"] * (up @ down)
        norms = state.get(f"{name}.{_NORMS}{_ADAPTER}weight")  # [out]
        plain[f"{name}.weight"] = weight if norms is None else weight * (norms / weight.norm(dim=1))[:, None]
    return plain


def save_adapter(folder: Path, model: Any, state: Mapping[str, Tensor]) -> None:
    """Write the adapter in the format of `PeftModel.from_pretrained`."""
    folder.mkdir(exist_ok=True)
    model.peft_config["default"].save_pretrained(folder)
    tensors = {_name_in_file(name): tensor.contiguous() for name, tensor in state.items() if ".lora_" in name}
    save_tensors(tensors, folder / FILE, {"format": "pt"})


def _name_in_file(name: str) -> str:
    """Return peft's name in a file of an adapter's tensor."""
    return PREFIX + name.replace(f".{_NORMS}{_ADAPTER}weight", f".{_NORMS}").replace(_ADAPTER, ".")


def load_adapter(folder: Path, model: nn.Module) -> None:
    """Replace the model's adapter by the saved one.

    Raises:
        ModelError: the folder has no adapter, or one of other layers or sizes.
    """
    if not (folder / FILE).is_file():
        raise ModelError(
            f"{folder.parent}: this checkpoint has no adapter: its run trained without model.lora; remove model.lora, "
            "or start another run with this checkpoint as model.path"
        )
    saved = load_file(folder / FILE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" not in name:
                continue
            tensor = saved.pop(_name_in_file(name), None)
            if tensor is None or tensor.shape != parameter.shape:
                raise ModelError(f"{folder}: the adapter does not fit model.lora ({name} differs); restore model.lora")
            parameter.copy_(tensor)
    if saved:
        raise ModelError(
            f"{folder}: the adapter has layers that model.lora does not select; restore model.lora.targets and "
            "model.lora.dora"
        )
