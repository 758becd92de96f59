"""The rollout engine on vLLM servers (extra `vllm`): one beside each process of a run, or some that all processes ask.

A request has a prompt's tokens and images, and returns the tokens of its group, or of as many rows of it as a server
decodes at the same time, with their log-probabilities. vLLM draws the tokens: row g of a group from the seed of its
prompt + g. So a completion depends on its row in the step, but is not that of another engine. vLLM gives the
log-probabilities of the distribution that it sampled from; the trainer computes those of the policy, and the entropies,
in a pass of its own.

Every server reads the weights from files by vLLM's own protocol, which names their version; every completion names the
version that it was sampled with. With adapters, a server reads the other weights once, at its start, and each step has
an adapter of another name, which the requests give (`calibrl_core.rollout.adapter_files`). A server that ends, hangs or
fails is started again, reads the same files, and gets the lost requests again (`calibrl_core.rollout.servers`).

Completions of the next step can be sampled ahead, while the trainer updates: `begin` sends their requests, and the
`generate` of the next step takes the answers. They are of weights one step old, and the log-probabilities that the
trainer computes of them are of the weights of the step that takes them.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models import packing
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.adapter_files import AdapterFiles, room_for
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.server_layout import ServerFolder, max_rows, served_dtype
from calibrl_core.rollout.servers import Asked
from calibrl_core.rollout.token_buffers import TokenBuffers
from calibrl_core.rollout.vllm_server import AdapterError, RefusedError, ServerError
from calibrl_core.rollout.weight_files import ServedWeights, WeightFiles, WeightUpdate
from calibrl_core.settings.sampling import EngineSettings

log = logging.getLogger(__name__)

PASS_TOKENS = 32_768  # of a pass that computes log-probabilities
FILTERS = ("top_k", "top_p", "min_p", "repetition_penalty")  # vLLM applies them in the order of `sampling.draw`
BAN = -100.0  # added to a logit; vLLM permits no less


class StaleWeightsError(RuntimeError):
    """A server sampled from other weights than the policy's."""


@dataclass(frozen=True, eq=False)
class _Begun:
    """Completions that were asked for before their step."""

    ids: list[str]  # of the examples
    request: SamplingRequest
    version: int  # of the weights
    asked: Asked

    def is_for(self, examples: Sequence[Example], request: SamplingRequest) -> bool:
        return self.request == request and self.ids == [example.id for example in examples]


class ServedEngine:
    """vLLM servers that sample for this process."""

    def __init__(
        self, policy: Policy, settings: EngineSettings, ranks: Ranks = ALONE, pass_tokens: int = PASS_TOKENS
    ) -> None:
        """Start the servers. Every process of the run must call this.

        Args:
            policy: its form and weights go to the servers.
            settings: where the servers run; `batch_tokens` sizes the key-value memory of each, in which one row of the
                model's maximum length always fits.
            ranks: the processes of the run.
            pass_tokens: maximum tokens of a pass that computes log-probabilities.

        Raises:
            LaunchError: there are no GPUs for the servers.
            ModelError: vLLM is not installed, or supports neither the model nor a memory of that size.
        """
        self._policy, self._pass_tokens = policy, pass_tokens
        self._rows_at_once = max_rows(settings.batch_tokens)
        self._update: WeightUpdate
        self._version = 0
        self._sampling = False
        self._begun: list[_Begun] = []  # at most those of the current step, answered, and those of the next one
        try:
            if room_for(policy) is not None:
                try:
                    self._start(AdapterFiles(policy, served_dtype(policy), ranks), settings, ranks)
                    return
                except AdapterError as error:
                    log.warning("vLLM does not load the adapters, so each step passes all weights: %s", error)
            self._start(WeightFiles(policy, served_dtype(policy), ranks), settings, ranks)
        except ServerError as error:
            raise ModelError(f"rollout.engine: vllm_server does not start with this model: {error}") from error

    def _start(self, weights: AdapterFiles | WeightFiles, settings: EngineSettings, ranks: Ranks) -> None:
        """Start servers for these weights. Adapters are loaded at once, since a server can lack some of the layers."""
        self._weights: ServedWeights = weights
        self._folder = ServerFolder(self._policy, settings, ranks, weights)
        self._servers = self._folder.servers()
        try:
            self._servers.start(weights.write(0) if isinstance(weights, AdapterFiles) else None)
        except ServerError:
            self.close()
            raise

    @contextmanager
    def sampling(self, version: int) -> Iterator[None]:
        """Pass the policy's weights to the servers: see `RolloutEngine.sampling`. Outside, a server beside the trainer
        leaves it the GPU, unless it samples ahead. What was begun is answered first, with the weights that it began
        with.
        """
        for begun in self._begun:
            self._answers(begun.asked)
        self._update = self._weights.write(version)
        self._servers.load(self._update)
        self._version = version
        with self._policy.weights.gathered():  # for `_write_logprobs`
            self._sampling = True
            try:
                yield
            finally:
                self._sampling = False
        self._servers.rest()

    def begin(self, examples: Sequence[Example], request: SamplingRequest) -> None:
        """Begin to sample: see `SamplesAhead.begin`.

        Raises:
            RuntimeError: completions of another step are being sampled.
        """
        if any(begun.asked.waiting for begun in self._begun):
            raise RuntimeError("completions of another step are being sampled")
        asked = self._ask(examples, request)
        self._begun.append(_Begun([example.id for example in examples], request, self._version, asked))

    @torch.no_grad()
    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        """Sample, or take what was begun: see `RolloutEngine.generate`.

        Raises:
            StaleWeightsError: completions are of other weights than the policy's; if begun, than those one step before.
            ModelError: vLLM reads a prompt as other tokens than the trainer, or refuses a request.
            ServerError: the server failed too often.
        """
        begun = next((one for one in self._begun if one.is_for(examples, request)), None)
        if begun is None:
            asked, version = self._ask(examples, request), self._version
        else:
            self._begun.remove(begun)
            asked, version = begun.asked, begun.version
            if version != self._version - 1:
                raise StaleWeightsError(f"completions were begun with weights {version}, not {self._version - 1}")
        choices = self._choices(examples, request, self._answers(asked))
        for choice in choices:
            if {span["version"] for span in choice["weight_versions"]} != {str(version)}:
                raise StaleWeightsError(f"vLLM sampled with weights {choice['weight_versions']}, not {version}")
        buffers = self._buffers(choices)
        self._write_logprobs(examples, buffers, request)
        return buffers.rollouts(self._policy, request.group_size, request.sampling.stop)

    def _ask(self, examples: Sequence[Example], request: SamplingRequest) -> Asked:
        if not self._sampling:
            raise StaleWeightsError("the server has the weights of an earlier step: sample within `sampling()`")
        first, parts = request.first_row // request.group_size, self._parts(request)
        bodies = [
            self._body(example, request, request.first_row + place * request.group_size, part)
            for place, example in enumerate(examples)
            for part in parts
        ]
        return self._servers.ask(bodies, [first + place for place in range(len(examples)) for _ in parts])

    def _parts(self, request: SamplingRequest) -> list[range]:
        """Return the rows of a group that each of its requests asks for. vLLM draws a greedy completion once."""
        count, most = (request.group_size if request.temperature else 1), self._rows_at_once
        return [range(start, min(start + most, count)) for start in range(0, count, most)]

    def _answers(self, asked: Asked) -> list[Any]:
        try:
            return self._servers.answers(asked)
        except RefusedError as error:
            raise ModelError(f"rollout.engine: {error}; use the engine shared_prefill with this model") from error

    def _choices(self, examples: Sequence[Example], request: SamplingRequest, answers: Sequence[Any]) -> list[Any]:
        """Return the completions of answers, in the order of prompts and rows."""
        choices: list[Any] = []
        parts = len(answers) // len(examples)
        for place, example in enumerate(examples):
            found: list[Any] = []
            for answer in answers[place * parts : (place + 1) * parts]:
                _check_prompt(self._policy, example, answer["prompt_token_ids"])
                found += sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            choices += found * (request.group_size // len(found))
        return choices

    def _body(self, example: Example, request: SamplingRequest, row: int, part: range) -> dict[str, Any]:
        """Return a request. row: the number of the group's first row in the step; part: the rows of the group."""
        tokens, images = self._policy.encoder.unexpanded(example)
        seed = int(np.random.SeedSequence([*request.seed, row]).generate_state(1, np.uint64)[0] >> np.uint64(2))
        body: dict[str, Any] = {
            "token_ids": tokens,
            "return_token_ids": True,
            "sampling_params": {
                "n": len(part),
                "seed": seed + part.start,  # vLLM adds the place in the request
                "temperature": request.temperature,
                "max_tokens": request.max_tokens,
                **request.sampling.model_dump(include=set(FILTERS)),
                "logprobs": 0,
                "stop_token_ids": sorted(self._policy.stop_ids),
                "ignore_eos": True,
                "stop": list(request.sampling.stop),
                "detokenize": bool(request.sampling.stop),  # vLLM finds a stop string in the text, after each token
                "skip_special_tokens": False,
                "include_stop_str_in_output": True,
                "logit_bias": {str(token): BAN for token in self._policy.banned.nonzero().flatten().tolist()},
            },
        }
        if self._update.adapter:
            body["model"] = self._update.adapter
        if images:
            body["content_parts"] = [{"type": "image_url", "url": _data_url(image)} for image in images]
        return body

    def _buffers(self, choices: Sequence[Any]) -> TokenBuffers:
        """Return tokens and the sampler's log-probabilities."""
        buffers = TokenBuffers.empty(len(choices), max(len(one["token_ids"]) for one in choices), self._policy)
        for row, choice in enumerate(choices):
            count = len(choice["token_ids"])
            logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            buffers.tokens[row, :count] = torch.tensor(choice["token_ids"], device=self._policy.device)
            buffers.sampler_logprobs[row, :count] = torch.tensor(logprobs, device=self._policy.device)
            buffers.mask[row, :count] = True
        return buffers

    def _write_logprobs(self, examples: Sequence[Example], buffers: TokenBuffers, request: SamplingRequest) -> None:
        """Write log-probabilities and entropies under the policy."""
        policy, lengths = self._policy, buffers.mask.sum(-1).tolist()
        owners = [place for place in range(len(examples)) for _ in range(request.group_size)]
        prompts = [length for length in policy.prompt_lengths(examples) for _ in range(request.group_size)]
        for part in packing.micro_batches(
            owners, lengths, prompts, self._pass_tokens, None, shared=policy.shares_prompts
        ):
            rows = torch.tensor(part)
            width = max(lengths[row] for row in part)
            output = policy.token_logprobs(
                examples,
                [owners[row] for row in part],
                buffers.tokens[rows, :width],
                buffers.mask[rows, :width],
                request.temperature or 1.0,
                with_entropy=True,
            )
            assert output.entropies is not None
            buffers.logprobs[rows, :width], buffers.entropies[rows, :width] = output.logprobs, output.entropies

    def close(self) -> None:
        """End the server. The engine cannot be used afterwards."""
        self._servers.close()
        self._weights.close()
        self._folder.close()


def _check_prompt(policy: Policy, example: Example, tokens: Sequence[int]) -> None:
    """Check the tokens that vLLM made of a prompt.

    Raises:
        ModelError: they are not the trainer's.
    """
    if list(tokens) != policy.encode([example]).input_ids[0].tolist():
        raise ModelError(
            f"rollout.engine: vLLM reads the prompt of {example.id} as other tokens than the trainer does; "
            "use the engine shared_prefill with this model"
        )


def _data_url(image: Any) -> str:
    content = io.BytesIO()
    image.save(content, "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
