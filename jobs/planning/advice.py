"""Warnings about specs that are valid but may be a mistake: rules on the spec, its data and its model."""

from collections.abc import Iterator, Sequence
from functools import cache

import yaml

from calibrl import presets
from calibrl.schemas import AnySpec, DataFacts, MemoryPlan, Notice, TrainSpec
from calibrl_core.config import BuiltinModel
from calibrl_core.data.schema import weighted_rows

MANY_EPOCHS = 20
SMALL_LR, FEW_STEPS = 2e-6, 100
LARGE_LR, LARGE_LORA_LR = 1e-5, 1e-3  # for a pretrained model in reinforcement learning, without and with LoRA
SMALL_GROUP = 4
TOO_LARGE_FOR_A_CPU = 1_000_000_000  # parameters
ABOVE_PRESET = 2.5  # factor on the learning rate of the preset: at 3 every algorithm lost accuracy


def warnings(spec: AnySpec, data: Sequence[DataFacts], memory: MemoryPlan | None) -> Iterator[Notice]:
    """Yield the warnings about a spec, each with its field."""
    if memory and memory.parameters >= TOO_LARGE_FOR_A_CPU and not spec.resources.gpus:
        billions = memory.parameters / 1e9
        yield _notice("resources.gpus", f"a model with {billions:.1f} billion parameters is very slow on a CPU slot")
    if memory and memory.fits is False:
        yield _notice("resources.gpus", memory.explanation)
    if isinstance(spec, TrainSpec):
        facts = together(spec, data)
        steps = spec.steps if facts.rows is None else spec.step_count(facts.rows)  # None: unknown
        yield from _of_data(spec, facts)
        yield from _of_weights(spec, data)
        yield from _of_learning(spec, steps)
        yield from _of_validation(spec, steps)
        if spec.precision == "bfloat16" and not spec.resources.gpus:
            yield _notice("precision", "bfloat16 on a CPU saves little memory and is slow on most machines")


def together(spec: TrainSpec, data: Sequence[DataFacts]) -> DataFacts:
    """Return the facts of all training data as those of one source: `rows` are those of an epoch."""
    parts = data[: len(spec.sources)]
    counts = [
        None if part.rows is None else weighted_rows(part.rows, source.weight)
        for part, source in zip(parts, spec.sources, strict=True)
    ]
    experts = [part.with_expert for part in parts]
    return parts[0].model_copy(
        update={
            "field": "data",
            "rows": None if None in counts else sum(count or 0 for count in counts),
            "checked": sum(part.checked for part in parts),
            "with_expert": None if None in experts else sum(count or 0 for count in experts),
        }
    )


def _of_data(spec: TrainSpec, facts: DataFacts) -> Iterator[Notice]:
    if facts.rows is not None:
        if facts.rows < spec.prompts_per_step:
            yield _notice(
                "prompts_per_step", f"the data has only {facts.rows:,} rows: some rows occur several times per step"
            )
        epochs = spec.epochs or spec.step_count(facts.rows) * spec.prompts_per_step / max(1, facts.rows)
        if epochs > MANY_EPOCHS:
            yield _notice("epochs" if spec.epochs else "steps", f"{epochs:.0f} epochs over {facts.rows:,} rows")
    if spec.algorithm.needs_experts and facts.with_expert is not None and facts.with_expert < facts.checked:
        share = 1 - facts.with_expert / facts.checked
        yield _notice("data", f"{share:.0%} of the checked rows have no expert and get no guidance")


def _of_weights(spec: TrainSpec, data: Sequence[DataFacts]) -> Iterator[Notice]:
    for source, facts in zip(spec.sources, data, strict=False):  # the data of the validation follows
        if facts.rows and not weighted_rows(facts.rows, source.weight):
            text = f"the trainer refuses this: {source.weight:g} leaves none of the {facts.rows} rows; raise it"
            yield _notice(f"{facts.field}.weight", text)


def _of_learning(spec: TrainSpec, steps: int | None) -> Iterator[Notice]:
    lr = spec.optimizer.lr
    if lr <= SMALL_LR and steps is not None and steps < FEW_STEPS:
        yield _notice("optimizer.lr", f"{lr:g} is too small to change the weights in {steps} steps")
    elif lr <= SMALL_LR and spec.model.lora:
        yield _notice("optimizer.lr", f"{lr:g} is small for LoRA; about {LARGE_LORA_LR / 10:g} is usual")
    preset_lr = _preset_lr(spec.algorithm.type)
    if preset_lr is not None and isinstance(spec.model, BuiltinModel) and lr > ABOVE_PRESET * preset_lr:
        times = f"{lr / preset_lr:.3g} times"
        yield _notice("optimizer.lr", f"{lr:g} is {times} the value of the preset {spec.algorithm.type}")
    if not spec.algorithm.samples:
        return
    if isinstance(spec.model, BuiltinModel):
        yield _notice(
            "model",
            f"{spec.model.builtin} has random weights: reinforcement learning finds no correct answer to learn from. "
            "First train with the preset sft, then set the model to the checkpoint of that job (from_job)",
        )
    largest = LARGE_LORA_LR if spec.model.lora else LARGE_LR
    if not isinstance(spec.model, BuiltinModel) and lr > largest and not _is_digits(spec):
        yield _notice("optimizer.lr", f"{lr:g} is large for a pretrained model; about {largest / 10:g} is usual")
    if spec.rollout.group_size < SMALL_GROUP:
        size = spec.rollout.group_size
        yield _notice(
            "rollout.group_size",
            f"with {size} rollouts per prompt most groups have equal rewards and no learning signal",
        )
    if spec.rollout.temperature != 1:
        yield _notice(
            "rollout.temperature", f"{spec.rollout.temperature:g} also changes the distribution that is trained"
        )


def _is_digits(spec: TrainSpec) -> bool:
    """Return True for built-in data: its models are small, even if another job trained them first."""
    return all("builtin" in source.model_fields_set for source in spec.sources)


def _of_validation(spec: TrainSpec, steps: int | None) -> Iterator[Notice]:
    if spec.validation is None:
        yield _notice(
            "validation", "without validation no checkpoint can be marked best, and overfitting stays unnoticed"
        )
    elif steps is not None and spec.validation.every_steps > steps:
        yield _notice("validation.every_steps", f"larger than the {steps} steps: only the last step is validated")


@cache
def _preset_lr(algorithm: str) -> float | None:
    """Return the learning rate of the algorithm's preset; None: it has no preset, as one of another package."""
    return float(yaml.safe_load(presets.text(algorithm))["optimizer"]["lr"]) if algorithm in presets.names() else None


def _notice(field: str, message: str) -> Notice:
    return Notice(field=field, message=message)
