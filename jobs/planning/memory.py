"""Estimates the memory of a job's process from its settings and the shape of its model, without torch.

Memory per parameter is exact. Activations are estimated for a transformer with SwiGLU; images count as their tokens.
Unused memory of the allocator is not included. PROMPT_TOKENS is assumed for prompts without a limit.

A process goes through phases, one at a time: it loads the model; in each step it samples (rollout), computes the
log-probabilities of the reference, and updates; sometimes it saves. The peak is that of the largest phase.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import get_args

from calibrl.schemas import AnySpec, MemoryPart, MemoryPhase, MemoryPlan, TrainingParts
from calibrl_core.config import LoraSettings, ModelOptions
from jobs.planning.model_shapes import ModelShape, is_vision

PROMPT_TOKENS = 1024
CHUNK = {True: 2**26, False: 2**24}  # logits per chunk, on a GPU or not: see calibrl_core.models.logprobs
BASE_BYTES = {True: 1 << 30, False: 400_000_000}  # CUDA context and libraries; Python with its imports
HOST_BASE_BYTES = 2_000_000_000  # of a process on a GPU: Python with its libraries
FILE_BYTES = 2 * 10**9  # of a checkpoint, on the host: see calibrl_core.models.tensor_files

BITS = 4 + 8 / 64 + 32 / (64 * 256)  # of a quantised number: its code, its scale in 8 bits, the scale of 256 scales

OFFLOADED = ("weights", "optimizer", "gradients", "second gradient", "reference")  # parts that `cpu_offload` moves
PASSING = ("activations", "logits", "layer computed again")  # parts that are gone at the end of a backward pass
ALWAYS: tuple[MemoryPhase, ...] = get_args(MemoryPhase)
TRAINING: tuple[MemoryPhase, ...] = ("rollout", "reference", "update", "save")
PASSES: tuple[MemoryPhase, ...] = ("load", "rollout", "update")  # the check at load runs one


@dataclass(frozen=True)
class _Sizes:
    """Quantities that the memory depends on. `shards`: number of processes that share the per-parameter memory.
    `offload`: this memory is the host's, and not a GPU's."""

    shape: ModelShape
    on_gpu: bool
    bfloat16: bool
    shards: int
    offload: bool = False

    @property
    def width(self) -> int:
        """Bytes per computed number."""
        return 2 if self.bfloat16 else 4

    @property
    def by(self) -> str:
        """Divisor of memory per parameter, as a formula."""
        return f" / {self.shards} shards" if self.shards > 1 else ""

    @property
    def layer(self) -> int:
        """Parameters of one layer of the language model."""
        return self.shape.in_layers // self.shape.layers

    @property
    def outside(self) -> int:
        """Parameters outside the layers: embeddings, head, vision tower."""
        return self.shape.parameters - self.shape.in_layers

    @property
    def front(self) -> int:
        """Parameters that a pass needs before the layers only: vision tower, and embeddings if they are no head."""
        return self.shape.vision + self.shape.head  # embeddings are as large as the head

    @property
    def gathered(self) -> int:
        """Bytes of all weights of a sharded model as a pass needs them: layers as computed, others in float32."""
        return self.width * self.shape.in_layers + 4 * self.outside

    def linear(self, *, trained_vision: bool = True) -> int:
        """Return the number of parameters in linear layers, optionally without the vision tower."""
        return sum(prod(shape) for name, shape in self.shape.linear.items() if trained_vision or not is_vision(name))

    def quantised(self, options: ModelOptions) -> list[int]:
        """Return the number of parameters of each quantised layer: see `calibrl_core.models.quantisation`."""
        if options.quantization is None:
            return []
        return [prod(shape) for name, shape in self.shape.linear.items() if not is_vision(name)]


def estimate(spec: AnySpec, shape: ModelShape, options: ModelOptions) -> MemoryPlan:
    """Return the memory of each process of a job. The caller sets `fits`, the explanation and the remedies."""
    gpus = spec.rollout.trainer_gpus(spec.resources.gpus)
    processes = spec.resources.machines * max(1, gpus)
    sharded = isinstance(spec, TrainingParts) and spec.parallel == "fsdp" and processes > 1
    bfloat16 = spec.precision == "bfloat16" or (spec.precision == "auto" and gpus > 0)
    sizes = _Sizes(shape, gpus > 0, bfloat16, processes if sharded else 1)
    if isinstance(spec, TrainingParts) and sharded:
        sizes = replace(sizes, shards=spec.shard_size or processes, offload=spec.cpu_offload and gpus > 0)
    trained = offloaded = held = 0
    parts = [_part("process", BASE_BYTES[gpus > 0], ALWAYS, "constant: CUDA context, or Python with its libraries")]
    if isinstance(spec, TrainingParts):
        trained, added = _trained(shape, options)
        parts += [*_weights(sizes, options, trained, added), *_training(spec, sizes, options, trained)]
        offloaded = sum(part.bytes for part in parts if part.name in OFFLOADED) if sizes.offload else 0
        parts = [part for part in parts if not (sizes.offload and part.name in OFFLOADED)]
        passing = [part for part in parts if part.name in PASSING]
        parts += _gathered(sizes, trained - added, passing, frozen=options.freeze_vision)
        parts += _of_adapters(sizes, options)
        held = _held_for_checkpoints(spec, shape, trained)
        if gpus == 0 and spec.checkpoints.host_gigabytes:
            formula = "copies of the weights and moments of a checkpoint, at most checkpoints.host_gigabytes and a file"
            parts.append(_part("checkpoint to write", held, TRAINING, formula))
        elif gpus == 0 and sharded:  # without shards, the tensors of a file are views
            file = min(max(4 * shape.parameters, _moments(spec, trained)), FILE_BYTES)
            parts.append(_part("checkpoint to write", file, ("save",), "the larger of weights and moments, or a file"))
        samples = _samples(spec)
        rows = spec.prompts_per_step * spec.rollout.group_size if samples else 0
        validation = spec.validation.rollout(spec.rollout) if spec.validation else spec.rollout
        longest = max(spec.rollout.max_completion_tokens, validation.max_completion_tokens)
        parts += _rollouts(sizes, longest, samples * rows, spec)
    else:
        parts += _weights(sizes, options, 0, 0)
        longest = spec.rollout.max_completion_tokens
        parts += _rollouts(sizes, longest, spec.rollout.batch_tokens, spec)
    return MemoryPlan(
        bytes=max(by_phase(parts).values()),
        on="GPU" if gpus else "host",
        host_bytes=_host_bytes(sizes, held) + offloaded if gpus else max(by_phase(parts).values()),
        phases=by_phase(parts),
        parameters=shape.parameters,
        trained=trained,
        parts=[part for part in parts if part.bytes],
        fits=None,
        explanation="",
        remedies=[],
    )


def by_phase(parts: Sequence[MemoryPart]) -> dict[MemoryPhase, int]:
    """Return the bytes that a process holds in each phase."""
    return {phase: sum(part.bytes for part in parts if phase in part.phases) for phase in ALWAYS}


def _host_bytes(sizes: _Sizes, held: int) -> int:
    """Return the host memory of the first process of a job on GPUs: a whole model while it loads, unless it is sharded,
    which maps its files; and what is `held` of a checkpoint. The other processes hold no checkpoint."""
    return HOST_BASE_BYTES + max(0 if sizes.shards > 1 else 4 * sizes.shape.parameters, held)


def _held_for_checkpoints(spec: TrainingParts, shape: ModelShape, trained: int) -> int:
    """Return the bytes of a checkpoint's tensors that wait to be written, with a file and the tensor that follows."""
    most = round(spec.checkpoints.host_gigabytes * 10**9) + FILE_BYTES + 4 * shape.largest
    return min(4 * shape.parameters + _moments(spec, trained), most)


def _moments(spec: TrainingParts, trained: int) -> int:
    return 2 * trained + 8 * trained // 256 if spec.optimizer.kind == "adamw_8bit" else 8 * trained


def _gathered(sizes: _Sizes, trained: int, passing: Sequence[MemoryPart], *, frozen: bool) -> Iterator[MemoryPart]:
    """Yield what a process with sharded weights holds of other shards: see `calibrl_core.models.sharded_weights`.

    trained: without adapters. passing: parts that are gone when the backward pass comes to the front; the logits are
    gone when it comes to the layers.
    """
    if sizes.shards == 1:
        return
    layer, outside, width = sizes.layer, sizes.outside, sizes.width
    head, front = sizes.shape.head, sizes.front
    rest = outside - head - front
    unit = max(layer, head, front)
    formula = "4 bytes x the largest unit as gathered and as used, the layer that was gathered before, and the rest"
    yield _part("whole weights", 4 * (2 * unit + layer + rest), ("load",), formula)
    formula = f"{width} bytes x {sizes.shape.in_layers:,} of layers + 4 bytes x {outside:,} outside, all gathered"
    yield _part("whole weights", sizes.gathered, ("rollout",), formula)
    own = front - (sizes.shape.vision if frozen else 0)
    stages = (  # bytes of weights and gradients, and of what is gone then
        (3 * width * layer, (width + 4) * layer, sum(part.bytes for part in passing if part.name == "logits")),
        (width * layer + 4 * head, 8 * head, 0),
        (4 * front, 8 * own, sum(part.bytes for part in passing)),
    )
    weights, gradients, gone = max(stages, key=lambda stage: stage[0] + (stage[1] if trained else 0) - stage[2])
    formula = f"the most in layers, head or front, beyond what is gone then, and 4 bytes x {rest:,} of the rest"
    yield _part("whole weights", max(0, weights - gone) + 4 * rest, ("update",), formula)
    if trained:
        size = gradients - max(0, gone - weights) + 4 * rest
        yield _part("whole gradients", size, ("update",), "in the same, each with its sum, and of the rest")
    largest = 4 * max(layer, sizes.shape.largest)
    yield _part("whole weights", largest, ("save",), "4 bytes x the larger of a layer and the largest tensor")


def _trained(shape: ModelShape, options: ModelOptions) -> tuple[int, int]:
    """Return the number of trained parameters, and the number of adapter parameters among them."""
    if options.lora is not None:
        norms = int(options.lora.dora)  # per row of a weight
        adapters = sum(options.lora.rank * sum(one) + norms * one[0] for one in _adapted(shape, options.lora))
        return adapters, adapters
    return shape.parameters - (shape.vision if options.freeze_vision else 0), 0


def _adapted(shape: ModelShape, lora: LoraSettings) -> list[tuple[int, ...]]:
    """Return the shapes of linear layers that get an adapter, as `calibrl_core.models.adapters` chooses them."""
    if not lora.targets:
        return [one for name, one in shape.linear.items() if not is_vision(name)]
    endings = tuple(f".{target}.weight" for target in lora.targets)
    return [one for name, one in shape.linear.items() if f".{name}".endswith(endings)]


def _kept_for_adapters(shape: ModelShape, lora: LoraSettings) -> int:
    """Return how many more numbers per token and layer the backward pass keeps with adapters than without: those of
    DoRA and dropout, less the inputs of frozen layers."""
    adapted = _adapted(shape, lora)
    kept = 0
    if lora.dora:  # the results of the weight and of the adapter, which the norms scale
        kept += 2 * sum(one[0] for one in adapted) // shape.layers
    if lora.dropout:  # an input of its own per adapter; its mask has a byte per number
        kept += 5 * sum(one[1] for one in adapted) // (4 * shape.layers)
    if all(one[0] != shape.intermediate for one in adapted):
        kept -= shape.hidden
    if all(one[1] != shape.intermediate for one in adapted):
        kept -= shape.intermediate
    return kept


def _of_adapters(sizes: _Sizes, options: ModelOptions) -> Iterator[MemoryPart]:
    """Yield what adapters take beside their weights: row norms of DoRA, and the merged weights of a checkpoint."""
    if options.lora is None:
        return
    adapted = [prod(one) for one in _adapted(sizes.shape, options.lora)]
    if options.lora.dora:
        formula = f"4 copies x 4 bytes x {max(adapted):,} of the largest adapted weight"
        yield _part("row norms", 16 * max(adapted), PASSES, formula)
    if not sizes.on_gpu:  # on a GPU they are on the host, one layer after the other
        merged = min(4 * sum(adapted), FILE_BYTES)
        yield _part("merged weights", merged, ("save",), f"4 bytes x {sum(adapted):,} adapted, at most a file")


def _weights(sizes: _Sizes, options: ModelOptions, trained: int, added: int) -> list[MemoryPart]:
    count, linear, shards = sizes.shape.parameters, sizes.linear(), sizes.shards
    counted = f"{count:,} parameters, from {sizes.shape.source}"
    if quantised := sum(sizes.quantised(options)):
        others = 4 * (count - quantised + added) - (4 - sizes.width) * (linear - quantised)
        size = int(quantised * BITS / 8) + others
        formula = f"{counted}; the {quantised:,} of quantised layers {BITS:.3f} bits"
        formula += f", other linear layers {sizes.width} bytes, others and {added:,} of adapters 4"
        return [
            _part("weights", size, ALWAYS, formula),
            *_dequantised(sizes, options),
            *_adapters_in_half(sizes, added),
        ]
    if sizes.bfloat16 and (options.lora is not None or not trained):
        halved = 4 * (count - linear) + 2 * linear + 4 * added
        formula = f"{counted}; the {linear:,} of frozen linear layers 2 bytes, others and {added:,} of adapters 4"
        parts = [_part("weights", halved // shards, ALWAYS, formula + sizes.by), *_adapters_in_half(sizes, added)]
        if not sizes.on_gpu:
            formula = f"4 bytes x {linear:,} of linear layers, which are loaded in float32"
            parts.append(_part("weights to convert", 4 * linear, ("load",), formula))
        return parts
    formula = f"4 bytes (float32 masters) x {counted}{sizes.by}"
    parts = [_part("weights", 4 * (count + added) // shards, ALWAYS, formula)]
    if sizes.bfloat16 and trained:
        cast = sizes.linear(trained_vision=not options.freeze_vision)
        if shards > 1:  # layers are gathered in bfloat16
            cast -= sizes.linear(trained_vision=False)
        parts.append(_part("weights in bfloat16", 2 * cast, PASSES, f"2 bytes x {cast:,} of linear layers"))
    return parts


def _adapters_in_half(sizes: _Sizes, added: int) -> Iterator[MemoryPart]:
    """Yield the copies of trained adapters that a pass in bfloat16 makes."""
    if sizes.bfloat16 and added:
        yield _part("adapters in bfloat16", 2 * added, PASSES, f"2 bytes x {added:,} of adapters")


def _dequantised(sizes: _Sizes, options: ModelOptions) -> Iterator[MemoryPart]:
    """Yield what quantised layers need for a moment: the weight of one layer, or those that a checkpoint merges."""
    largest, width = max(sizes.quantised(options)), sizes.width
    of = f"bytes x {largest:,} of the largest quantised weight"
    yield _part("dequantised weight", 8 * largest, ("load",), f"8 {of}, as peft looks at it")
    yield _part("dequantised weight", width * largest, ("rollout",), f"{width} {of}")
    backward = 4 if width == 4 else 6  # float32, and its copy as computed
    yield _part("dequantised weight", backward * largest, ("update",), f"{backward} {of}")
    each, bytes_each = sum(sizes.quantised(options)) // sizes.shape.layers, 8 if sizes.on_gpu else 4
    formula = f"{bytes_each} bytes x {each:,} of a layer"  # on a GPU both before and after the adapters are merged
    yield _part("dequantised layer", bytes_each * each, ("save",), formula)


def _training(spec: TrainingParts, sizes: _Sizes, options: ModelOptions, trained: int) -> list[MemoryPart]:
    shape, shards, by = sizes.shape, sizes.shards, sizes.by
    in_8_bits, moments = spec.optimizer.kind == "adamw_8bit", _moments(spec, trained)
    what = "2 bytes (moments in 8 bits), and 8 per 256," if in_8_bits else "8 bytes (AdamW's two moments)"
    parts = [
        _part("optimizer", moments // shards, TRAINING, f"{what} x {trained:,} trained{by}"),
        _part("gradients", 4 * trained // shards, TRAINING, f"4 bytes x {trained:,} trained{by}"),
    ]
    if spec.algorithm.has_guidance and spec.diagnostics.gradients_every is not None:
        formula = f"4 bytes x {trained:,} trained{by}, in steps that compare gradients"
        parts.append(_part("second gradient", 4 * trained // shards, ("update",), formula))
    if spec.algorithm.needs_reference and options.lora is None:
        linear = sizes.linear()
        each = 4 * shape.parameters - (2 * linear if sizes.bfloat16 else 0)
        parts.append(_part("reference", each // shards, ALWAYS, f"a frozen copy of the weights, for kl_coef{by}"))
        if shards > 1:
            parts.append(_part("whole reference", sizes.gathered, ("reference",), "its weights, all gathered"))
    return [*parts, *_activations(spec, sizes, options)]


def _activations(spec: TrainingParts, sizes: _Sizes, options: ModelOptions) -> Iterator[MemoryPart]:
    """Yield what the passes of a micro-batch hold. Logits are gone when the first layer is computed again."""
    shape, width, row = sizes.shape, sizes.width, _row_tokens(spec, sizes.shape)
    rows = spec.prompts_per_step * (spec.rollout.group_size if spec.algorithm.samples else 1)
    rows = max(1, min(rows, spec.micro_batch_rows or rows, spec.micro_batch_tokens // row))
    tokens, answers = rows * row, rows * min(row, spec.rollout.max_completion_tokens)
    numbers = 7 * shape.hidden + 3 * shape.kv_width + 4 * shape.intermediate
    layer = f"(7 x {shape.hidden} hidden + 3 x {shape.kv_width} keys + 4 x {shape.intermediate} inner)"
    if options.lora is not None:
        more = _kept_for_adapters(shape, options.lora)
        numbers, layer = numbers + more, f"({layer[1:-1]} {more:+,} for adapters)"
    logits = 12 * min(CHUNK[sizes.on_gpu], answers * shape.vocabulary)
    by_logits = _part("logits", logits, ("update",), "3 copies x 4 bytes x a chunk of completion tokens x vocabulary")
    if not options.recomputes(shape.parameters):
        formula = f"{tokens:,} tokens of a micro-batch x {shape.layers} layers x {width} bytes x {layer}"
        yield _part("activations", tokens * width * shape.layers * numbers, ("update",), formula)
        yield by_logits
        return
    formula = f"{tokens:,} tokens of a micro-batch x {shape.layers} layers x 4 bytes x {shape.hidden} hidden"
    yield _part("activations", tokens * 4 * shape.layers * shape.hidden, ("update",), formula)
    formula = f"{tokens:,} tokens x {width} bytes x {layer}"
    again = _part("layer computed again", tokens * width * numbers, ("update",), formula)
    yield max(again, by_logits, key=lambda part: part.bytes)


def _samples(spec: TrainingParts) -> int:
    """Return 1 if the run samples completions: all runs except supervised ones without validation."""
    return int(spec.algorithm.samples or spec.validation is not None)


def _rollouts(sizes: _Sizes, completion_tokens: int, rows: int, spec: AnySpec) -> list[MemoryPart]:
    if spec.rollout.server_gpus:  # on GPUs of their own
        return []
    shape, width = sizes.shape, sizes.width
    prompt_tokens = (spec.prompts.max_tokens if isinstance(spec, TrainingParts) else None) or PROMPT_TOKENS
    row = _bounded(prompt_tokens + completion_tokens, shape)
    together = min(rows, max(1, spec.rollout.batch_tokens // row)) if rows else 0
    cached = together * row
    formula = f"{together:,} rows x {row:,} tokens x {shape.layers} layers x 2 x {shape.kv_width} x {width} bytes"
    held: tuple[MemoryPhase, ...] = TRAINING if spec.rollout.samples_ahead else ("rollout",)  # then vLLM sleeps
    parts = [
        _part("keys and values", cached * shape.layers * 2 * shape.kv_width * width, held, formula),
        _part("next tokens", 8 * together * shape.vocabulary, held, "2 copies x 4 bytes x rows x vocabulary"),
    ]
    if spec.rollout.engine != "shared_prefill":
        copy = shape.parameters * width
        parts.append(_part("vLLM's weights", copy, held, f"{width} bytes x {shape.parameters:,}: the engine's own"))
    return parts


def _row_tokens(spec: TrainingParts, shape: ModelShape) -> int:
    return _bounded((spec.prompts.max_tokens or PROMPT_TOKENS) + spec.rollout.max_completion_tokens, shape)


def _bounded(tokens: int, shape: ModelShape) -> int:
    return min(tokens, shape.longest or tokens)


def _part(name: str, size: int, phases: tuple[MemoryPhase, ...], formula: str) -> MemoryPart:
    return MemoryPart(name=name, bytes=size, phases=list(phases), formula=formula)
