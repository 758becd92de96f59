"""A model with its processor, as the trainer sees it: encode prompts, run rows, give log-probabilities.

`[R, L]`: rows, left-padded prompt tokens. `[R, T]`: rows, right-padded completion tokens. `V`: vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from calibrl_core.config import ModelSource, PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models import adapters
from calibrl_core.models.encoding import PromptEncoder, PromptRows
from calibrl_core.models.errors import ModelError
from calibrl_core.models.features import ImageInputs
from calibrl_core.models.loading import load_model, model_of
from calibrl_core.models.logprobs import Head, TokenLogprobs, token_logprobs
from calibrl_core.models.packing import PackedInputs, pack_inputs, pack_rows
from calibrl_core.models.weights import Weights

Precision = Literal["auto", "float32", "bfloat16"]

SMALL = 20_000_000  # parameters; below, a second thread costs more than it brings
NEVER_SAMPLED = ("<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<|image_pad|>", "<|video_pad|>")
MEDIA_TOKENS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")  # of a model's config


class Policy:
    """A causal text or image-text model of transformers, with its processor (a text model's is its tokenizer)."""

    def __init__(self, model: nn.Module, processor: Any, device: torch.device, precision: Precision = "auto") -> None:
        """`model` is moved to `device` and its weights made float32: the optimizer's masters. `precision` is that of
        forward and backward; auto: bfloat16 on a GPU. Raises ModelError where the model's parts are not as expected."""
        self.model: Any = model.to(device=device, dtype=torch.float32)
        _switch_dropout_off(self.model)
        self.weights = Weights()
        self.processor = processor
        self.device = device
        self.bfloat16 = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.tokenizer.padding_side = "left"  # it reloads as right
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # masks say what is padding
        self.pad_id: int = self.tokenizer.pad_token_id
        self.stop_ids = self._stop_ids()
        self.banned = self._banned().to(device)  # [V] bool
        self.encoder = PromptEncoder(processor, getattr(self.decoder, "get_rope_index", None))
        self._takes = frozenset(inspect.signature(self.decoder.forward).parameters)
        self.shares_prompts = self._shares_prompts()
        self.images = ImageInputs(self.decoder, self.encode, "mm_encoder_outputs" in self._takes)
        self._lora = adapters.lora_layers(self.model)
        self._uses_adapters = True
        if device.type == "cpu" and self.parameter_count < SMALL:
            torch.set_num_threads(1)
        if self.bfloat16 and self._lora:
            adapters.halve_frozen(self.model)
        if self.bfloat16 and device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # the head, which stays float32, through tensor cores

    @property
    def decoder(self) -> Any:
        """The model without its head: it gives hidden states."""
        return self.model.base_model

    @property
    def head(self) -> Head:
        """What turns hidden states into logits."""
        layer, config = self.model.get_output_embeddings(), self.model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        return Head(layer.weight, layer.bias, float(scale), getattr(config, "final_logit_softcapping", None))

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that the optimizer updates, by name, in its order."""
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    def _stop_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        found = frozenset(token for token in (*listed, self.tokenizer.eos_token_id) if token is not None)
        if self.tokenizer.eos_token_id is None:
            raise ModelError("model: its tokenizer names no end-of-sequence token (eos_token); nothing would end")
        return found

    def _banned(self) -> Tensor:
        """Tokens that no sampler may emit: an image placeholder breaks the next forward, padding means nothing."""
        banned = torch.zeros(self.model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        vocabulary = self.tokenizer.get_vocab()
        marks = {vocabulary[mark] for mark in NEVER_SAMPLED if mark in vocabulary} | {self.pad_id}
        marks |= {getattr(self.model.config, name, None) for name in MEDIA_TOKENS} - {None}
        banned[sorted(marks - self.stop_ids)] = True
        banned[len(self.tokenizer) :] = True  # rows that only pad the matrix to a round size
        return banned

    def _shares_prompts(self) -> bool:
        """Whether completions can be packed behind one prompt: every layer attends to everything before, by a mask
        that may be given, and positions come from outside."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        config = self.model.config
        layers = DynamicCache(config=config).layers
        return (
            config.get_text_config()._attn_implementation in ("sdpa", "eager")
            and "position_ids" in self._takes
            and not getattr(config.get_text_config(), "alibi", False)
            and not ("token_type_ids" in self._takes and self.encoder.takes_images)  # images seen both ways
            and all(type(layer) is DynamicLayer for layer in layers)
        )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """How every forward pass runs: in the policy's precision, with or without its adapters."""
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16))
            if not self._uses_adapters:
                stack.enter_context(adapters.switched_off(self._lora))
            yield

    def without_adapters(self) -> Policy:
        """This very policy, sharing all it has, as it was before its adapters were added."""
        other = copy.copy(self)
        other._uses_adapters = False
        return other

    def encode(self, examples: Sequence[Example]) -> PromptRows:
        """Chat template, image processor and tokenizer, a row for each example. On the policy's device."""
        rows = self.encoder.encode(examples, self.pad_id)
        moved = {name: value.to(self.device) for name, value in vars(rows).items() if isinstance(value, Tensor)}
        return replace(rows, images={name: value.to(self.device) for name, value in rows.images.items()}, **moved)

    def prompt_lengths(self, examples: Sequence[Example]) -> list[int]:
        """Tokens of each prompt, images and chat template included."""
        return self.encoder.lengths(examples)

    def inputs(self, **given: Any) -> dict[str, Any]:
        """Of `given`, what this model's forward takes and is there."""
        return {name: value for name, value in given.items() if name in self._takes and value is not None}

    def attention_mask(self, seen: Tensor) -> Tensor:
        """The mask `seen` `[R, 1, queries, keys]` bool as the model's attention takes it."""
        if self.model.config.get_text_config()._attn_implementation == "sdpa":
            return seen
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)

    def tokenize_experts(self, examples: Sequence[Example], limit: int) -> tuple[Tensor, Tensor]:
        """The experts' tokens `[R, T]` long, right-padded, and their mask `[R, T]` bool.

        Without special tokens, one stop token appended unless cut at `limit`.
        """
        stop = self.tokenizer.eos_token_id
        texts = [example.expert or "" for example in examples]
        banned = set(self.banned.nonzero().flatten().tolist())  # such as `<image>` in the text: no sampler could say it
        sequences = [
            [*(token for token in tokens if token not in banned), stop][:limit]
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
        """The log-probabilities alone of `token_logprobs`, `[R, T]` float32."""
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
        """Log-probability (nats) of each completion token under the sampler's distribution, `[R, T]` float32, and, if
        asked, the entropy of that distribution where the token stands, `[R, T]`.

        Row r of `completions` `[R, T]` answers `examples[owners[r]]`; rows of one prompt should stand side by side,
        since neighbours share one run of the prompt; images run once a prompt in any case. Both carry the gradient
        where one is wanted. Masked positions hold 0.
        """
        lengths = completion_mask.sum(-1).tolist()
        used = {owner: place for place, owner in enumerate(dict.fromkeys(owners))}
        asked = [examples[owner] for owner in used]
        prompts = self.encode(asked)
        places = [used[owner] for owner in owners]
        sizes = prompts.attention_mask.sum(-1).tolist()
        packs = pack_rows(places, lengths, [sizes[place] for place in places], shared=self.shares_prompts)
        inputs = pack_inputs(packs, prompts, completions, lengths, self.pad_id)

        def scores() -> tuple[Tensor, Tensor | None]:
            with self.computing():
                images = self.images.of(asked, prompts, [pack.prompt for pack in packs])
                hidden = self._hidden(inputs, prompts.token_types, images).flatten(0, 1)[inputs.predictors]
            targets = completions[completion_mask]
            flat = token_logprobs(hidden, self.head, targets, temperature, self.banned, with_entropy=with_entropy)
            return flat.logprobs, flat.entropies

        def placed(values: Tensor) -> Tensor:
            return values.new_zeros(completions.shape).masked_scatter(completion_mask, values)

        logprobs, entropies = self.weights.run(scores)
        return TokenLogprobs(placed(logprobs), placed(entropies) if entropies is not None else None)

    def _hidden(self, inputs: PackedInputs, token_types: Tensor | None, images: Mapping[str, Any]) -> Tensor:
        """`[K, S, D]` of packs; token_types `[R, L]` of their prompts."""
        mask = None if inputs.attention_mask is None else self.attention_mask(inputs.attention_mask)
        if token_types is not None:
            of_prompt = inputs.prompt_tokens >= 0
            token_types = token_types.flatten()[inputs.prompt_tokens.clamp(min=0)].where(of_prompt, 0)
        given = self.inputs(position_ids=inputs.position_ids, token_type_ids=token_types)
        output = self.decoder(input_ids=inputs.input_ids, attention_mask=mask, use_cache=False, **given, **images)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def saved_tensors(self) -> dict[str, Tensor]:
        """The tensors that `save` would write, by the names that they have there, adapters merged. Not copies."""
        from transformers.core_model_loading import revert_weight_conversion

        state = self.weights.state(self.model)
        return dict(revert_weight_conversion(self.model, adapters.merged(state, self._lora) if self._lora else state))

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write model and processor as `from_pretrained` reads them (safetensors), adapters merged; and beside it, in
        `adapter/`, the adapters themselves. `state`: see `Weights.state`, for which all processes are needed."""
        state = self.weights.state(self.model) if state is None else state
        if self._lora:
            model_of(self.model, adapters.merged(state, self._lora)).save_pretrained(folder)
            adapters.save_adapter(folder / adapters.FOLDER, self.model, state)
        else:
            self.model.save_pretrained(folder, state_dict=dict(state))
        self.processor.save_pretrained(folder)


def load_policy(source: ModelSource, precision: Precision = "auto", checkpoint: Path | None = None) -> Policy:
    """The policy that a config names, on the GPU where there is one, set up for training as the config says; or, bit
    for bit, what it had become when the run that started from it wrote `checkpoint`.

    Raises ModelError where the source is no model of a kind that can be trained, or has nothing that its options ask
    for (naming the field); OSError where files are missing. Never runs code that comes with a model.
    """
    options = source.model_dump(include={"lora", "freeze_vision", "gradient_checkpointing"})
    start = source if checkpoint is None or source.lora else PathModel(path=str(checkpoint), **options)
    model, processor = load_model(start)
    adapters.prepare(model, source)
    if checkpoint is not None and source.lora:
        adapters.load_adapter(checkpoint / adapters.FOLDER, model)
    policy = Policy(model, processor, torch.device("cuda" if torch.cuda.is_available() else "cpu"), precision)
    _check_head(policy)
    return policy


def make_reference(policy: Policy, source: ModelSource, precision: Precision = "auto") -> Policy:
    """The policy as it was when the run began from `source`, frozen. With adapters it is the same model, with them
    switched off; otherwise a copy, which needs the memory of another model."""
    if source.lora:
        return policy.without_adapters()
    bare = source.model_copy(update={"freeze_vision": False, "gradient_checkpointing": False})
    reference = load_policy(bare, precision)
    reference.model.requires_grad_(False).eval()
    if reference.bfloat16:
        adapters.halve_frozen(reference.model)
    return reference


def _switch_dropout_off(model: nn.Module) -> None:
    """In training, too: the sampler's log-probabilities serve as the old ones, so the update must meet the very
    distribution that was sampled from. transformers keeps the rates in modules' attributes; the config stays as is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


@torch.no_grad()
def _check_head(policy: Policy) -> None:
    """Refuse a model whose logits are not what we take them for: every log-probability would be wrong, unseen."""
    tokens = torch.tensor([[policy.tokenizer.eos_token_id] * 2], device=policy.device)
    policy.model.eval()
    with policy.computing():
        hidden = policy.decoder(input_ids=tokens).last_hidden_state[0]
        expected = policy.model(input_ids=tokens).logits[0].float()
    if (policy.head.logits(hidden) - expected).norm() > 0.02 * expected.norm():  # bfloat16 errs by 0.004
        kind = policy.model.config.model_type
        raise ModelError(f"model: {kind} computes its logits in a way that the trainer does not know")
