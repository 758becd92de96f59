"""Warnings of a plan about a model: what the trainer would refuse, or warn of, after it has loaded the model."""

from collections.abc import Iterator, Sequence

from calibrl.schemas import AnySpec, DataFacts, ModelChoice, Notice, TrainingParts
from calibrl_core.config import BuiltinModel
from jobs.planning.model_shapes import ModelShape, is_vision


def model_warnings(
    spec: AnySpec, field: str, model: ModelChoice, shape: ModelShape, data: Sequence[DataFacts]
) -> Iterator[Notice]:
    """Yield the warnings about a model. `field`: the one that names it."""
    if not shape.takes_images:
        yield from image_warnings(field, data)
    yield from _of_positions(spec, field, shape)
    if isinstance(spec, TrainingParts):
        if model.freeze_vision and not shape.takes_images:
            text = "the trainer refuses this: the model has no vision tower; remove freeze_vision"
            yield Notice(field=f"{field}.freeze_vision", message=text)
        if model.lora is not None and not isinstance(model, BuiltinModel):  # whose vision layers the shape lacks
            yield from _of_targets(f"{field}.lora.targets", model.lora.targets, shape, frozen=model.freeze_vision)


def image_warnings(field: str, data: Sequence[DataFacts]) -> Iterator[Notice]:
    """Yield a warning of each source with images, for a text model. `field`: the one that names the model."""
    for facts in data:
        if facts.with_images:
            text = f"{facts.with_images} of {facts.checked} rows have images, and {field} is a text model"
            yield Notice(field=facts.field, message=f"{text}: choose an image-text model")


def _of_positions(spec: AnySpec, model: str, shape: ModelShape) -> Iterator[Notice]:
    """Yield a warning of each limit that permits more tokens than the model has positions."""
    prompt = spec.prompts.max_tokens if isinstance(spec, TrainingParts) else None
    limits = {"rollout.max_completion_tokens": spec.rollout.max_completion_tokens}
    if isinstance(spec, TrainingParts) and spec.validation and spec.validation.max_completion_tokens:
        limits["validation.max_completion_tokens"] = spec.validation.max_completion_tokens
    for field, completion in limits.items():
        if shape.longest and (prompt or 1) + completion > shape.longest:
            prompts = f"a prompt of {prompt} tokens (prompts.max_tokens)" if prompt else "any prompt"
            yield Notice(
                field=field,
                message=f"{prompts} with a completion of {completion} tokens exceeds the {shape.longest} positions of "
                f"the model ({model}), beyond which it was not trained: lower it",
            )


def _of_targets(field: str, targets: Sequence[str], shape: ModelShape, *, frozen: bool) -> Iterator[Notice]:
    """Yield a warning of each target of LoRA without a layer. `frozen`: layers of the vision tower do not count."""
    layers = [name.removesuffix(".weight") for name in shape.linear if not (frozen and is_vision(name))]
    for target in targets:
        if not any(f".{layer}".endswith(f".{target}") for layer in layers):
            known = ", ".join(sorted({layer.rpartition(".")[2] for layer in layers}))
            text = f"the trainer refuses this: no linear layer that can be adapted is called {target}"
            yield Notice(field=field, message=f"{text}; choose from {known}")
