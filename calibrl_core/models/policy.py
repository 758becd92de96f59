"""A model with its processor, as the trainer uses it: encode prompts, run rows, return log-probabilities.

`[R, L]`: rows, left-padded prompt tokens. `[R, T]`: rows, right-padded completion tokens. `V`: vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calibrl_core.config import ModelOptions, ModelSource, PathModel, Precision
from calibrl_core.data.prompts import DEFAULT_FORMAT, PromptFormat
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models import adapters, attention
from calibrl_core.models.encoding import PromptEncoder, PromptRows
from calibrl_core.models.errors import ModelError
from calibrl_core.models.features import ImageInputs
from calibrl_core.models.head_check import check_head
from calibrl_core.models.image_decoders import decoder_of
from calibrl_core.models.loading import load_model
from calibrl_core.models.logprobs import Head, TokenLogprobs, token_logprobs
from calibrl_core.models.packing import PackedInputs, pack_inputs, pack_rows
from calibrl_core.models.placement import place
from calibrl_core.models.quantisation import parameter_count, quantise_layers
from calibrl_core.models.tensor_files import write_tensors
from calibrl_core.models.turn_end import turn_end
from calibrl_core.models.vocabulary import banned_ids
from calibrl_core.models.weights import Sharding

MODEL = "model"  # stem of the files with the tensors of a saved model
FORMAT = {"format": "pt"}  # their metadata
SMALL = 20_000_000  # parameters; for smaller models one thread is faster than two


class Policy:
    """A causal text or image-text model of transformers, with its processor (of a text model: its tokenizer)."""

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        device: torch.device,
        precision: Precision = "auto",
        form: PromptFormat = DEFAULT_FORMAT,
        *,
        sharding: Sharding | None = None,
    ) -> None:
        """Move `model` to `device`, with weights in float32: the optimizer's masters. In bfloat16, frozen linear layers
        of a model with adapters or without any trained weight are kept in bfloat16.

        `precision` is that of forward and backward passes; auto: bfloat16 on a GPU. sharding: hold this process's shard
        of each weight; all processes must call this.

        Raises:
            ModelError: the tokenizer has no end-of-sequence token, or the model has no row for it or for padding.
        """
        # The update must run the distribution that was sampled from. Train mode only adds what differs from it:
        # dropout, jitter of routers, statistics of batches. So the model stays in eval mode, in the update too. The
        # one exception is the dropout of adapters, which a setting asks for: see `dropping`.
        self.model: Any = model.eval()
        self.processor, self.device = processor, device
        self.bfloat16 = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        self._lora = adapters.lora_layers(self.model)
        frozen_in_half = self.bfloat16 and (bool(self._lora) or not self.trained)
        self.weights = place(model, device, sharding=sharding, bfloat16=self.bfloat16, frozen_in_half=frozen_in_half)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.tokenizer.padding_side = "left"  # a reload resets it to right
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # masks mark the padding
        self.pad_id: int = self.tokenizer.pad_token_id
        rope = getattr(self.decoder, "get_rope_index", None)
        self.encoder = PromptEncoder(processor, rope, form, bfloat16=self.bfloat16)
        listed = self._listed_stop_ids()
        self.turn_end = turn_end(self.encoder, listed)
        self.stop_ids = listed | {self.turn_end[-1]}
        self.banned = banned_ids(model, self.tokenizer, self.stop_ids, self.pad_id).to(device)  # [V] bool
        self._check_ids()
        self._takes = frozenset(inspect.signature(self.decoder.forward).parameters)
        self.cache_name = "cache_params" if "cache_params" in self._takes else "past_key_values"  # Mamba: the first
        takes_images = self.encoder.takes_images
        self.shares_prompts = attention.shares_prompts(self.model.config, self._takes, takes_images=takes_images)
        self.images = ImageInputs(self.decoder, self.encode, "mm_encoder_outputs" in self._takes)
        self._uses_adapters = True
        if device.type == "cpu" and self.parameter_count < SMALL:
            torch.set_num_threads(1)
        if self.bfloat16 and device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # the head stays float32, on tensor cores

    @property
    def decoder(self) -> Any:
        """Return the model without its head: its output are hidden states."""
        return decoder_of(self.model)

    @property
    def head(self) -> Head:
        """Return the output layer, which computes logits from hidden states."""
        layer, config = self.model.get_output_embeddings(), self.model.config.get_text_config()
        # Of the class, not of its config: those of Aya Vision and Command A Vision ignore the scale in theirs.
        scale = getattr(self.model, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        return Head(layer.weight, layer.bias, float(scale), getattr(config, "final_logit_softcapping", None))

    @property
    def parameter_count(self) -> int:
        """Return the number of parameters of the model."""
        return parameter_count(self.model)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the optimizer updates, by name, in its order."""
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    def _listed_stop_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        stop_ids = frozenset(token for token in (*listed, self.tokenizer.eos_token_id) if token is not None)
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                "model: its tokenizer has no end-of-sequence token (eos_token), so no completion would end; "
                "set eos_token in tokenizer_config.json"
            )
        return stop_ids

    def _check_ids(self) -> None:
        rows = len(self.banned)
        for name in ("eos_token", "pad_token"):
            token: int = getattr(self.tokenizer, f"{name}_id")
            if token >= rows:
                raise ModelError(
                    f"model: {name} of its tokenizer has the id {token}, but the model has only {rows} rows of "
                    f"embeddings; set {name} in tokenizer_config.json to a token with a lower id"
                )

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Set up a forward pass: the policy's precision, with or without its adapters."""
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16))
            if not self._uses_adapters:
                stack.enter_context(adapters.adapters_off(self._lora))
            yield

    def without_adapters(self) -> Policy:
        """Return this policy as it was before its adapters were added. Both share all weights."""
        other = copy.copy(self)
        other._uses_adapters = False
        return other

    @property
    def drops(self) -> bool:
        """Return if `dropping` has an effect."""
        return any(isinstance(one, nn.Dropout) for layer in self._lora.values() for one in layer.lora_dropout.values())

    @contextmanager
    def dropping(self, *seed: int) -> Iterator[None]:
        """Apply the dropout of the adapters, if they have one, in the passes of an update. Equal seeds drop equally."""
        with adapters.adapters_dropping(self._lora, seed) if self.drops else nullcontext():
            yield

    def encode(self, examples: Sequence[Example]) -> PromptRows:
        """Return one encoded row per example, on the policy's device: chat template, image processor and tokenizer.

        Raises:
            DataError: as `PromptEncoder.encode`.
        """
        rows = self.encoder.encode(examples, self.pad_id)
        moved: dict[str, Any] = {
            name: value.to(self.device) for name, value in vars(rows).items() if isinstance(value, Tensor)
        }
        for name in ("images", "token_types"):
            moved[name] = {key: value.to(self.device) for key, value in getattr(rows, name).items()}
        return replace(rows, **moved)

    def prompt_lengths(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of tokens of each prompt, images and chat template included."""
        return self.encoder.lengths(examples)

    def accepted_inputs(self, **given: Any) -> dict[str, Any]:
        """Return those of `given` that are not None and that this model's forward pass accepts."""
        return {name: value for name, value in given.items() if name in self._takes and value is not None}

    def tokenize_experts(self, examples: Sequence[Example], limit: int) -> tuple[Tensor, Tensor]:
        """Return the experts' tokens `[R, T]` long, right-padded, and their mask `[R, T]` bool.

        No special tokens, except those that end a turn, unless the expert is cut at `limit` tokens. Without the
        `<think>` that the prompt opens.
        """
        texts = [self.encoder.continued(example.expert or "") for example in examples]
        banned = set(self.banned.nonzero().flatten().tolist())  # such as `<image>` in the text, which is never sampled
        sequences = [
            [*(token for token in tokens if token not in banned), *self.turn_end][:limit]
            for tokens in self.tokenizer(texts, add_special_tokens=False).input_ids
        ]
        longest = max(len(sequence) for sequence in sequences)
        tokens = torch.full((len(sequences), longest), self.pad_id)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = True
        return tokens.to(self.device), mask.to(self.device)

    def logprobs(
        self,
        examples: Sequence[Example],
        owners: Sequence[int],
        completions: Tensor,
        completion_mask: Tensor,
        temperature: float,
    ) -> Tensor:
        """Return the log-probabilities of `token_logprobs`, `[R, T]` float32."""
        return self.token_logprobs(examples, owners, completions, completion_mask, temperature).logprobs

    def token_logprobs(
        self,
        examples: Sequence[Example],
        owners: Sequence[int],
        completions: Tensor,
        completion_mask: Tensor,
        temperature: float,
        *,
        with_entropy: bool = False,
    ) -> TokenLogprobs:
        """Return the log-probability (nats) of each completion token under the sampler's distribution, `[R, T]`
        float32, and with `with_entropy` the entropy of that distribution, `[R, T]`.

        Row r of `completions` `[R, T]` answers `examples[owners[r]]`; `completion_mask` `[R, T]` bool. Rows of one
        prompt should be adjacent, since neighbours share one run of the prompt. Images run once per prompt in any
        order. Both results carry the gradient if one is needed. Masked positions hold 0.
        """
        lengths = completion_mask.sum(-1).tolist()
        used = {owner: place for place, owner in enumerate(dict.fromkeys(owners))}
        asked = [examples[owner] for owner in used]
        prompts = self.encode(asked)
        places = [used[owner] for owner in owners]
        sizes = prompts.attention_mask.sum(-1).tolist()
        packs = pack_rows(places, lengths, [sizes[place] for place in places], shared=self.shares_prompts)
        inputs = pack_inputs(packs, prompts, completions, lengths, self.pad_id)

        def of_tokens() -> tuple[Tensor, Tensor | None]:
            with self.forward_context():
                images = self.images.inputs_for(asked, prompts, [pack.prompt for pack in packs])
                hidden = self._hidden(inputs, prompts.token_types, images).flatten(0, 1)[inputs.predictors]
            return self.weights.run_head(of_hidden, hidden)

        def of_hidden(hidden: Tensor) -> tuple[Tensor, Tensor | None]:
            targets = completions[completion_mask]
            flat = token_logprobs(hidden, self.head, targets, temperature, self.banned, with_entropy=with_entropy)
            return flat.logprobs, flat.entropies

        def placed(values: Tensor) -> Tensor:
            return values.new_zeros(completions.shape).masked_scatter(completion_mask, values)

        logprobs, entropies = self.weights.run(of_tokens)
        return TokenLogprobs(placed(logprobs), placed(entropies) if entropies is not None else None)

    def _hidden(self, inputs: PackedInputs, token_types: Mapping[str, Tensor], images: Mapping[str, Any]) -> Tensor:
        """Return hidden states `[K, S, D]` of packs. token_types: `[R, L]` each, of their prompts."""
        segments = inputs.segments
        mask = None if segments is None else attention.pack_mask_for(self.model.config, segments)
        places = inputs.prompt_tokens.clamp(min=0)
        types = {
            name: self.encoder.completed_types(name, of_prompts.flatten()[places], inputs.prompt_tokens >= 0)
            for name, of_prompts in token_types.items()
        }
        arguments = self.accepted_inputs(position_ids=inputs.position_ids, **types)
        output = self.decoder(input_ids=inputs.input_ids, attention_mask=mask, use_cache=False, **arguments, **images)
        hidden: Tensor = output.last_hidden_state
        return hidden

    @cached_property
    def lora(self) -> adapters.Adapters | None:
        """Return facts on the adapters; None if there are none."""
        return adapters.described(self.model, self._lora) if self._lora else None

    def saved_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors that `save` would write, with their names in the file, quantised weights dequantised, and
        adapters merged, or without `merged` left out. Others are no copies.

        Of sharded weights only one layer is whole at a time. Every process must iterate to the end.
        """
        from transformers.core_model_loading import revert_weight_conversion

        for part in self.weights.parts(self.model):
            adapted = {name: layer for name, layer in self._lora.items() if f"{name}.base_layer.weight" in part}
            tensors = adapters.merge_adapters(part, adapted if merged else {}) if self._lora else part
            yield from revert_weight_conversion(self.model, tensors).items()
            del part, tensors  # before the next part is gathered

    def save_form(self, folder: Path) -> None:
        """Write what `save` writes, without weights: configuration and processor."""
        config = copy.deepcopy(self.model.config)
        config.architectures = [type(self.model).__name__]
        config.dtype = self.model.dtype
        config.save_pretrained(folder)
        self.model.generation_config.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def save_small(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write what `save` writes, without the model's tensors: configuration, processor, adapters. All processes must
        call it; the first one writes.
        """
        if ranks.first:
            self.save_form(folder)
        if self._lora:
            self.save_adapter(folder / adapters.FOLDER, writes=ranks.first)

    def save_adapter(self, folder: Path, *, writes: bool) -> None:
        """Write the adapters in peft's format. All processes must call it; those with `writes` write."""
        own = {
            name: self.weights.full(one.detach()).cpu()
            for name, one in self.model.named_parameters()
            if ".lora_" in name
        }
        if writes:
            adapters.save_adapter(folder, self.model, own)

    def save(self, folder: Path) -> None:
        """Write model and processor in the format of `from_pretrained` (safetensors), adapters merged, and the adapters
        themselves to `adapter/`. Holds one file of tensors.
        """
        self.save_small(folder)
        write_tensors(folder, MODEL, self.saved_tensors(), FORMAT)


def load_policy(
    source: ModelSource,
    precision: Precision = "auto",
    checkpoint: Path | None = None,
    form: PromptFormat = DEFAULT_FORMAT,
    *,
    sharding: Sharding | None = None,
    frozen: bool = False,
) -> Policy:
    """Return the policy that a config names, on the GPU if there is one, set up for training. frozen: train no weight.

    With `checkpoint`, the policy is bit for bit the one that the run which started from `source` wrote there. Never
    runs code that comes with a model. sharding: see `Policy`.

    Raises:
        ModelError: the source is not a trainable kind of model, or has no part that its options name.
        OSError: files are missing.
    """
    options = source.model_dump(include={*ModelOptions.model_fields})
    start = source if checkpoint is None or source.lora else PathModel(path=str(checkpoint), **options)
    model, processor = load_model(start, mapped=sharding is not None or source.quantization is not None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if source.quantization is not None:  # before adapters, because the row norms of DoRA are those of the result
        quantise_layers(model, adapters.language_layers(model), device)
    adapters.prepare_model(model, source)
    if checkpoint is not None and source.lora:
        adapters.load_adapter(checkpoint / adapters.FOLDER, model)
    if frozen:
        model.requires_grad_(False)
    policy = Policy(model, processor, device, precision, form, sharding=sharding)
    check_head(policy)
    return policy


def make_reference(policy: Policy, source: ModelSource, precision: Precision = "auto") -> Policy:
    """Return the frozen policy from the start of the run, loaded from `source`.

    With adapters it is the same model with the adapters off; otherwise a copy, which needs the memory of another model
    and is sharded like the policy.
    """
    if source.lora:
        return policy.without_adapters()
    sharding = policy.weights.sharding
    model, processor = load_model(source, mapped=sharding is not None)
    model.requires_grad_(False)
    reference = Policy(model, processor, policy.device, precision, policy.encoder.form, sharding=sharding)
    reference.encoder = policy.encoder  # so that a prompt is encoded once for both
    return reference
