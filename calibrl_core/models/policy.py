"""A model with its processor, as the trainer sees it: encode prompts, run rows, give log-probabilities.

`[R, L]`: rows, left-padded prompt tokens. `[R, T]`: rows, right-padded completion tokens. `V`: vocabulary.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from calibrl_core import prompts
from calibrl_core.config import BuiltinModel, ModelSource
from calibrl_core.data.schema import Example
from calibrl_core.logprobs import TokenScores, token_scores
from calibrl_core.models.packing import pack_inputs, pack_rows

ENCODED_MEGABYTES = 512  # encoded prompts kept in memory; older ones are encoded again
SMALL = 20_000_000  # parameters; below, a second thread costs more than it brings
NEVER_SAMPLED = ("<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<|image_pad|>", "<|video_pad|>")


@dataclass(frozen=True)
class PromptRows:
    """Encoded prompts, one a row, with whatever image tensors the model wants (first dimension: images)."""

    input_ids: Tensor  # [R, L] long, left-padded
    attention_mask: Tensor  # [R, L] long
    images: dict[str, Tensor]


class Policy:
    """A causal image-text (or text) model of transformers, with its processor."""

    def __init__(self, model: nn.Module, processor: Any, device: torch.device) -> None:
        self.model: Any = model.to(device=device, dtype=torch.float32)
        self.processor = processor
        self.device = device
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.tokenizer.padding_side = "left"  # it reloads as right
        self.pad_id: int = self.tokenizer.pad_token_id
        self.stop_ids = self._stop_ids()
        self.banned = self._banned().to(device)  # [V] bool
        self._encoded: OrderedDict[tuple[str, tuple[bytes, ...]], dict[str, Tensor]] = OrderedDict()
        self._encoded_bytes = 0
        if device.type == "cpu" and self.parameter_count < SMALL:
            torch.set_num_threads(1)

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _stop_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return frozenset(token for token in (*listed, self.tokenizer.eos_token_id) if token is not None)

    def _banned(self) -> Tensor:
        """Tokens that no sampler may emit: an image placeholder breaks the next forward, padding means nothing."""
        banned = torch.zeros(self.model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        vocabulary = self.tokenizer.get_vocab()
        marks = {vocabulary[mark] for mark in NEVER_SAMPLED if mark in vocabulary} | {self.pad_id}
        marks |= {
            getattr(self.model.config, name)
            for name in ("image_token_id", "video_token_id")
            if isinstance(getattr(self.model.config, name, None), int)
        }
        banned[sorted(marks - self.stop_ids)] = True
        banned[len(self.tokenizer) :] = True  # rows that only pad the matrix to a round size
        return banned

    def encode(self, examples: Sequence[Example]) -> PromptRows:
        """Chat template, image processor and tokenizer, a row for each example."""
        return self._collate([self._encode_one(example) for example in examples])

    def _encode_one(self, example: Example) -> dict[str, Tensor]:
        key = (example.question, example.images)  # two files may well give their rows the same ids
        found = self._encoded.pop(key, None)
        if found is None:
            text = self.processor.apply_chat_template(
                prompts.messages(example), add_generation_prompt=True, tokenize=False
            )
            images = [Image.open(io.BytesIO(data)).convert("RGB") for data in example.images]
            found = dict(self.processor(text=[text], images=[images] if images else None, return_tensors="pt"))
            self._encoded_bytes += sum(tensor.nbytes for tensor in found.values())
        self._encoded[key] = found
        while self._encoded_bytes > ENCODED_MEGABYTES * 2**20 and len(self._encoded) > 1:
            _, oldest = self._encoded.popitem(last=False)
            self._encoded_bytes -= sum(tensor.nbytes for tensor in oldest.values())
        return found

    def _collate(self, encoded: Sequence[dict[str, Tensor]]) -> PromptRows:
        longest = max(one["input_ids"].shape[1] for one in encoded)
        input_ids = torch.full((len(encoded), longest), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, one in enumerate(encoded):
            length = one["input_ids"].shape[1]
            input_ids[row, longest - length :] = one["input_ids"][0]
            attention_mask[row, longest - length :] = 1
        names = {name for one in encoded for name in one} - {"input_ids", "attention_mask", "mm_token_type_ids"}
        images = {
            name: torch.cat([one[name] for one in encoded if name in one]).to(self.device) for name in sorted(names)
        }
        return PromptRows(input_ids.to(self.device), attention_mask.to(self.device), images)

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
        """The log-probabilities alone of `evaluate_tokens`, `[R, T]` float32."""
        return self.evaluate_tokens(examples, owners, completions, completion_mask, temperature).logprobs

    def evaluate_tokens(
        self,
        examples: Sequence[Example],
        owners: Sequence[int],
        completions: Tensor,
        completion_mask: Tensor,
        temperature: float,
        *,
        with_entropy: bool = False,
    ) -> TokenScores:
        """Log-probability (nats) of each completion token under the sampler's distribution, `[R, T]` float32, and, if
        asked, the entropy of that distribution where the token stands, `[R, T]`.

        Row r of `completions` `[R, T]` answers `examples[owners[r]]`; rows of one prompt should stand side by side,
        since neighbours share one run of the prompt and its images. Both carry the gradient where one is wanted.
        Masked positions hold 0.
        """
        lengths = completion_mask.sum(-1).tolist()
        packs = pack_rows(owners, lengths)
        prompts = self.encode([examples[pack.prompt] for pack in packs])
        inputs = pack_inputs(packs, prompts.input_ids, prompts.attention_mask, completions, lengths)
        output = self.model.model(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            position_ids=inputs.position_ids,
            use_cache=False,
            **prompts.images,
        )
        flat = token_scores(
            output.last_hidden_state.flatten(0, 1)[inputs.predictors],
            self.model.get_output_embeddings().weight,
            completions[completion_mask],
            temperature,
            self.banned,
            with_entropy=with_entropy,
        )

        def placed(values: Tensor) -> Tensor:
            return torch.zeros(completions.shape, device=self.device).masked_scatter(completion_mask, values)

        return TokenScores(placed(flat.logprobs), placed(flat.entropies) if flat.entropies is not None else None)

    def save(self, folder: Path) -> None:
        """Write model and processor as `from_pretrained` reads them (safetensors)."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_policy(source: ModelSource) -> Policy:
    """The policy that a config names, on the GPU where there is one. Never runs code that comes with a model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(source, BuiltinModel):
        from calibrl_core.models.tiny import build_tiny_vlm

        return Policy(*build_tiny_vlm(source.seed), device)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(source.path, dtype=torch.float32, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(source.path, trust_remote_code=False)
    return Policy(model, processor, device)
