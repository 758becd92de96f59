"""What of a model is trained: low-rank adapters (LoRA, arXiv 2106.09685), all but the vision tower, or everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from calibrl_core.config import LoraSettings, ModelOptions
from calibrl_core.models.errors import ModelError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

FOLDER = "adapter"  # beside a checkpoint's merged model
FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of a tensor's name in that file, as peft writes it
_ADAPTER = ".default."  # peft's name of the only adapter there is, in the names of its tensors
_SEED = 0  # of the adapters' first weights; they change nothing until training moves them


def prepare(model: Any, options: ModelOptions) -> None:
    """Freeze, add adapters and set up gradient checkpointing as `options` say. Raises ModelError, naming the field,
    where the model has nothing of the kind."""
    if options.freeze_vision:
        _freeze_vision(model)
    if options.lora is not None:
        _add_lora(model, options.lora)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # only the reentrant kind needs a gradient of frozen embeddings


def _freeze_vision(model: Any) -> None:
    language = {*model.get_decoder().parameters(), *model.get_output_embeddings().parameters()}
    language.add(model.get_input_embeddings().weight)
    vision = [parameter for parameter in model.parameters() if parameter not in language]
    if not vision:
        raise ModelError("freeze_vision: this model has no vision tower; leave the field out")
    for parameter in vision:
        parameter.requires_grad_(False)


def _add_lora(model: Any, settings: LoraSettings) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it by the rank
        lora_dropout=0.0,
        target_modules=_targets(model, settings.targets),
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        # In place, and with no wrapper around: whoever runs the model, the sampler too, runs the adapters.
        inject_adapter_in_model(config, model)


def _targets(model: Any, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers that get an adapter: those called so, or all of the language model's."""
    head, language = model.get_output_embeddings(), set(model.get_decoder().modules())
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not wanted:
        chosen = [name for name, module in linear.items() if module in language and module is not head]
        if not chosen:
            raise ModelError("lora: this model's language part has no linear layers (torch.nn.Linear) to adapt")
        return chosen
    chosen = []
    for target in wanted:
        called = [name for name in linear if f".{name}".endswith(f".{target}")]
        if not called:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ModelError(f"lora.targets: no linear layer is called {target}; there are {', '.join(known)}")
        if any(linear[name] is head for name in called):
            raise ModelError(f"lora.targets: {target} is the output layer, which can't have an adapter")
        chosen += called
    return chosen


def halve_frozen(model: Any) -> None:
    """Keep the frozen linear layers in bfloat16: autocast would round them at every call. Not the head, which runs in
    float32."""
    for module in model.modules():
        if not isinstance(module, nn.Linear) or module is model.get_output_embeddings():
            continue
        if not any(parameter.requires_grad for parameter in module.parameters()):
            module.to(torch.bfloat16)


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The layers that have an adapter, by name."""
    if not any(".lora_A." in name for name, _ in model.named_parameters()):
        return {}  # without importing peft
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def switched_off(layers: Mapping[str, LoraLayer]) -> Iterator[None]:
    """The model as it was before adapters were added."""
    for layer in layers.values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.enable_adapters(True)


def merged(state: Mapping[str, Tensor], layers: Mapping[str, LoraLayer]) -> dict[str, Tensor]:
    """The tensors of the model without adapters that computes the same: W + scaling B A for each adapted W."""
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}
    for name, layer in layers.items():
        down, up = (state[f"{name}.lora_{part}{_ADAPTER}weight"].float() for part in "AB")  # [r, in], [out, r]
        plain[f"{name}.weight"] = plain[f"{name}.weight"].float() + layer.scaling["default"] * (up @ down)
    return plain


def save_adapter(folder: Path, model: Any, state: Mapping[str, Tensor]) -> None:
    """Write the adapter as `PeftModel.from_pretrained` reads it."""
    folder.mkdir(exist_ok=True)
    model.peft_config["default"].save_pretrained(folder)
    tensors = {
        PREFIX + name.replace(_ADAPTER, "."): tensor.contiguous() for name, tensor in state.items() if ".lora_" in name
    }
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def load_adapter(folder: Path, model: nn.Module) -> None:
    """Put the saved adapter in place of the model's own. Raises ModelError if there is none, or if it is of other
    layers or sizes."""
    if not (folder / FILE).is_file():
        raise ModelError(
            f"{folder.parent}: this checkpoint has no adapter: its run trained without model.lora; take model.lora out "
            "again, or start another run with this checkpoint as model.path"
        )
    saved = load_file(folder / FILE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" not in name:
                continue
            tensor = saved.pop(PREFIX + name.replace(_ADAPTER, "."), None)
            if tensor is None or tensor.shape != parameter.shape:
                raise ModelError(f"{folder}: the adapter there is not of this model's lora settings ({name} differs)")
            parameter.copy_(tensor)
    if saved:
        raise ModelError(f"{folder}: the adapter there has layers that this model's lora settings lack")
