"""Settings that would make a job fit into the memory of the available GPUs."""

from collections.abc import Callable, Iterator, Mapping

from calibrl.schemas import TrainSpec
from calibrl_core.config import LoraSettings

Fits = Callable[[TrainSpec], bool]
Change = Callable[[TrainSpec], TrainSpec]
SMALLEST_BATCH = 1024  # tokens; below, one row hardly fits


def remedies(spec: TrainSpec, fits: Fits) -> list[str]:
    """Return the cheapest single setting with which `fits` is true; else the settings that must be changed together,
    the cheapest first. Empty if even all of them together do not suffice.
    """
    changes = list(_changes(spec))
    for name, value, change in changes:
        if fits(change(spec)):
            return [f"{name}: {value}"]
    chosen: dict[str, tuple[object, Change]] = {}
    for name, value, change in changes:
        chosen[name] = (value, change)
        if fits(_changed(spec, chosen)):
            break
    else:
        return []
    for name in list(chosen):
        others = {key: one for key, one in chosen.items() if key != name}
        if fits(_changed(spec, others)):
            chosen = others
    return [f"{name}: {value}" for name, (value, _) in chosen.items()]


def _changed(spec: TrainSpec, chosen: Mapping[str, tuple[object, Change]]) -> TrainSpec:
    for _, change in chosen.values():
        spec = change(spec)
    return spec


def _changes(spec: TrainSpec) -> Iterator[tuple[str, object, Change]]:
    """Yield changes that save memory, each with its setting and value, the cheapest first: those that change no result,
    then those that cost time, then those that train less.
    """
    if spec.algorithm.has_guidance and spec.diagnostics.gradients_every is not None:
        yield "diagnostics.gradients_every", "null", _setting("diagnostics", gradients_every=None)
    processes = spec.resources.machines * max(1, spec.rollout.trainer_gpus(spec.resources.gpus))
    if processes > 1 and spec.parallel == "ddp":
        yield "parallel", "fsdp", _setting(None, parallel="fsdp")
    if spec.model.gradient_checkpointing is not True:
        yield "model.gradient_checkpointing", "true", _setting("model", gradient_checkpointing=True)
    for divisor in (2, 4, 8):
        update, decoded = spec.micro_batch_tokens // divisor, spec.rollout.batch_tokens // divisor
        if update >= SMALLEST_BATCH:
            yield "micro_batch_tokens", update, _setting(None, micro_batch_tokens=update)
        if decoded >= SMALLEST_BATCH:
            yield "rollout.batch_tokens", decoded, _setting("rollout", batch_tokens=decoded)
    if processes > 1 and not spec.cpu_offload:
        yield "cpu_offload", "true", _setting(None, cpu_offload=True)
    if spec.optimizer.kind == "adamw":
        yield "optimizer.kind", "adamw_8bit", _setting("optimizer", kind="adamw_8bit")
    if spec.model.lora is None:
        yield "model.lora", "{rank: 16}", _setting("model", lora=LoraSettings())
    alone = processes <= 1 and spec.parallel == "ddp" and spec.rollout.engine == "shared_prefill"
    if alone and spec.model.quantization is None:
        if spec.model.lora:
            yield "model.quantization", "nf4", _setting("model", quantization="nf4")
        else:
            both = _setting("model", lora=LoraSettings(), quantization="nf4")
            yield "model", "{lora: {rank: 16}, quantization: nf4}", both


def _setting(section: str | None, **values: object) -> Change:
    """Return a function that sets fields of a section of a spec, or of the spec itself."""

    def change(spec: TrainSpec) -> TrainSpec:
        if section is None:
            return spec.model_copy(update=values)
        return spec.model_copy(update={section: getattr(spec, section).model_copy(update=values)})

    return change
