"""Estimates the memory of a job's process from its settings and the shape of its model, without torch.

Memory per parameter is exact. Activations are estimated for a transformer with SwiGLU; images count as their tokens.
Unused memory of the allocator is not included. PROMPT_TOKENS is assumed for prompts without a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from calibrl.schemas import EvaluateSpec, MemoryPart, MemoryPlan, TrainSpec
from calibrl_core.config import LoraSettings, ModelOptions
from jobs.planning.model_shapes import ModelShape, is_vision

PROMPT_TOKENS = 1024
BATCH_TOKENS = 131_072  # decoded together in an evaluation
CHUNK = {True: 2**26, False: 2**24}  # logits per chunk, on a GPU or not: see calibrl_core.models.logprobs
BASE_BYTES = {True: 1 << 30, False: 400_000_000}  # CUDA context and libraries; Python with its imports


@dataclass(frozen=True)
class _Sizes:
    """Quantities that the memory depends on. `shards`: number of processes that share the per-parameter memory."""

    shape: ModelShape
    on_gpu: bool
    bfloat16: bool
    shards: int

    @property
    def width(self) -> int:
        """Bytes per computed number."""
        return 2 if self.bfloat16 else 4

    def linear(self, *, trained_vision: bool = True) -> int:
        """Return the number of parameters in linear layers, optionally without the vision tower."""
        return sum(prod(shape) for name, shape in self.shape.linear.items() if trained_vision or not is_vision(name))


def estimate(spec: TrainSpec | EvaluateSpec, shape: ModelShape, options: ModelOptions) -> MemoryPlan:
    """Return the memory of each process of a job. The caller sets `fits` and the explanation."""
    gpus = spec.resources.gpus
    precision = spec.precision if isinstance(spec, TrainSpec) else "auto"
    sharded = isinstance(spec, TrainSpec) and spec.parallel == "fsdp" and gpus > 1
    bfloat16 = precision == "bfloat16" or (precision == "auto" and gpus > 0)
    sizes = _Sizes(shape, gpus > 0, bfloat16, gpus if sharded else 1)
    trained = 0
    parts = [_part("process", BASE_BYTES[gpus > 0], "always", "constant: CUDA context, or Python with its libraries")]
    if isinstance(spec, TrainSpec):
        trained, added = _trained(shape, options)
        parts += [*_weights(sizes, options, trained, added), *_training(spec, sizes, options, trained)]
        samples = _samples(spec)
        rows = spec.prompts_per_step * spec.rollout.group_size if samples else 0
        validation = spec.validation.rollout(spec.rollout) if spec.validation else spec.rollout
        longest = max(spec.rollout.max_completion_tokens, validation.max_completion_tokens)
        parts += _rollouts(sizes, longest, samples * rows, spec.rollout.batch_tokens, spec)
    else:
        parts += _weights(sizes, options, 0, 0)
        longest = spec.rollout.max_completion_tokens
        parts += _rollouts(sizes, longest, BATCH_TOKENS, BATCH_TOKENS, None)
    return MemoryPlan(
        bytes=peak(parts),
        on="GPU" if gpus else "host",
        parameters=shape.parameters,
        trained=trained,
        parts=[part for part in parts if part.bytes],
        fits=None,
        explanation="",
    )


def peak(parts: Sequence[MemoryPart]) -> int:
    """Return the permanent memory plus the larger of rollout and update, which alternate."""
    by_phase = {
        when: sum(part.bytes for part in parts if part.when == when) for when in ("always", "rollout", "update")
    }
    return by_phase["always"] + max(by_phase["rollout"], by_phase["update"])


def _trained(shape: ModelShape, options: ModelOptions) -> tuple[int, int]:
    """Return the number of trained parameters, and the number of adapter parameters among them."""
    if options.lora is not None:
        adapters = sum(options.lora.rank * sum(one) for one in _adapted(shape, options.lora))
        return adapters, adapters
    return shape.parameters - (shape.vision if options.freeze_vision else 0), 0


def _adapted(shape: ModelShape, lora: LoraSettings) -> list[tuple[int, ...]]:
    """Return the shapes of linear layers that get an adapter, as `calibrl_core.models.adapters` chooses them."""
    if not lora.targets:
        return [one for name, one in shape.linear.items() if not is_vision(name)]
    endings = tuple(f".{target}.weight" for target in lora.targets)
    return [one for name, one in shape.linear.items() if f".{name}".endswith(endings)]


def _weights(sizes: _Sizes, options: ModelOptions, trained: int, added: int) -> list[MemoryPart]:
    count, linear, shards = sizes.shape.parameters, sizes.linear(), sizes.shards
    by = f" / {shards} shards" if shards > 1 else ""
    counted = f"{count:,} parameters, from {sizes.shape.source}"
    if options.lora is not None and sizes.bfloat16:
        halved = 4 * (count - linear) + 2 * linear + 4 * added
        formula = f"{counted}; the {linear:,} of frozen linear layers 2 bytes, others and {added:,} of adapters 4"
        return [_part("weights", halved // shards, "always", formula + by)]
    parts = [_part("weights", 4 * (count + added) // shards, "always", f"4 bytes (float32 masters) x {counted}{by}")]
    if sizes.bfloat16 and trained:
        cast = sizes.linear(trained_vision=not options.freeze_vision)
        parts.append(_part("weights in bfloat16", 2 * cast // shards, "always", f"2 bytes x {cast:,} of linear layers"))
    return parts


def _training(spec: TrainSpec, sizes: _Sizes, options: ModelOptions, trained: int) -> list[MemoryPart]:
    shape, width, shards = sizes.shape, sizes.width, sizes.shards
    by = f" / {shards} shards" if shards > 1 else ""
    parts = [
        _part("optimizer", 8 * trained // shards, "always", f"8 bytes (AdamW's two moments) x {trained:,} trained{by}"),
        _part("gradients", 4 * trained // shards, "always", f"4 bytes x {trained:,} trained{by}"),
    ]
    if spec.algorithm.has_guidance and spec.diagnostics.gradients_every is not None:
        formula = f"4 bytes x {trained:,} trained{by}, in steps that compare gradients"
        parts.append(_part("second gradient", 4 * trained // shards, "update", formula))
    if spec.algorithm.needs_reference and options.lora is None:
        linear = sizes.linear()
        each = 4 * shape.parameters - (2 * linear if sizes.bfloat16 else 0)
        parts.append(_part("reference", each // shards, "always", f"a frozen copy of the weights, for kl_coef{by}"))
    rows = spec.prompts_per_step * (spec.rollout.group_size if spec.algorithm.samples else 1)
    tokens = min(spec.micro_batch_tokens, rows * _row_tokens(spec, shape))
    tokens = min(tokens, (spec.micro_batch_rows or rows) * _row_tokens(spec, shape))
    each = 7 * shape.hidden + 3 * shape.kv_width + 4 * shape.intermediate
    layer = f"(7 x {shape.hidden} hidden + 3 x {shape.kv_width} keys + 4 x {shape.intermediate} inner)"
    if options.gradient_checkpointing:
        activations = tokens * width * (shape.layers * shape.hidden + each)
        formula = (
            f"{tokens:,} tokens x {width} bytes x ({shape.layers} layers x {shape.hidden} hidden + one layer's {layer})"
        )
    else:
        activations = tokens * width * shape.layers * each
        formula = f"{tokens:,} tokens of a micro-batch x {shape.layers} layers x {width} bytes x {layer}"
    parts.append(_part("activations", activations, "update", formula))
    logits = min(CHUNK[sizes.on_gpu], tokens * shape.vocabulary)
    parts.append(
        _part("logits", 12 * logits, "update", f"3 copies x 4 bytes x {logits:,}: a chunk of tokens x vocabulary")
    )
    return parts


def _samples(spec: TrainSpec) -> int:
    """Return 1 if the run samples completions: all runs except supervised ones without validation."""
    return int(spec.algorithm.samples or spec.validation is not None)


def _rollouts(
    sizes: _Sizes, completion_tokens: int, rows: int, batch_tokens: int, spec: TrainSpec | None
) -> list[MemoryPart]:
    shape, width = sizes.shape, sizes.width
    prompt_tokens = (spec.prompts.max_tokens if spec else None) or PROMPT_TOKENS
    row = _bounded(prompt_tokens + completion_tokens, shape)
    together = min(rows, max(1, batch_tokens // row)) if rows else 0
    cached = together * row
    formula = f"{together:,} rows x {row:,} tokens x {shape.layers} layers x 2 x {shape.kv_width} x {width} bytes"
    parts = [
        _part("keys and values", cached * shape.layers * 2 * shape.kv_width * width, "rollout", formula),
        _part("next tokens", 8 * together * shape.vocabulary, "rollout", "2 copies x 4 bytes x rows x vocabulary"),
    ]
    if spec and spec.rollout.engine == "vllm":
        copy = shape.parameters * width
        parts.append(_part("vLLM's weights", copy, "always", f"{width} bytes x {shape.parameters:,}: the engine's own"))
        parts = [part.model_copy(update={"when": "always"}) for part in parts]  # vLLM keeps this memory reserved
    return parts


def _row_tokens(spec: TrainSpec, shape: ModelShape) -> int:
    return _bounded((spec.prompts.max_tokens or PROMPT_TOKENS) + spec.rollout.max_completion_tokens, shape)


def _bounded(tokens: int, shape: ModelShape) -> int:
    return min(tokens, shape.longest or tokens)


def _part(name: str, size: int, when: str, formula: str) -> MemoryPart:
    return MemoryPart.model_validate({"name": name, "bytes": size, "when": when, "formula": formula})
