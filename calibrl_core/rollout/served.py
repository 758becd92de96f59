"""The rollout engine on a vLLM server (extra `vllm`): each process of a run starts one and asks only that one.

A request has a prompt's tokens and images, and returns the tokens of a whole group with their log-probabilities. vLLM
draws the tokens: row g of a group from the seed of its prompt + g. So a completion depends on its row in the step, but
is not that of another engine. vLLM gives the log-probabilities of the distribution that it sampled from; the trainer
computes those of the policy, and the entropies, in a pass of its own.

Every server reads the weights from files by vLLM's own protocol, which names their version; every completion names the
version that it was sampled with. A server that ends, hangs or fails is started again, reads the same files, and gets
the lost requests again.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models import packing
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.token_buffers import TokenBuffers
from calibrl_core.rollout.vllm import StaleWeightsError, check_prompt, vllm_arguments
from calibrl_core.rollout.vllm_server import RefusedError, ServerError, VLLMServer
from calibrl_core.rollout.weight_files import WeightFiles

MAX_RESTARTS = 3  # of a server, per run
REQUESTS_AT_ONCE = 256  # prompts; vLLM queues the rows that do not fit
PROBE_SECONDS = 60.0  # without an answer to any request, until the server is asked if it still works; limit of that
PASS_TOKENS = 32_768  # of a pass that scores completions
FILTERS = ("top_k", "top_p", "min_p", "repetition_penalty")  # vLLM applies them in the order of `sampling.draw`
BAN = -100.0  # added to a logit; vLLM permits no less
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # has the calls for new weights
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # each process imports `vllm_program`
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class ServedEngine:
    """A vLLM server on the device of this process."""

    def __init__(self, policy: Policy, batch_tokens: int, ranks: Ranks = ALONE, pass_tokens: int = PASS_TOKENS) -> None:
        """Start the server. Every process of the run must call this.

        Args:
            policy: its form and weights go to the server.
            batch_tokens: sizes vLLM's key-value memory; one row of the model's maximum length always fits.
            ranks: the processes of the run.
            pass_tokens: maximum tokens of a pass that scores completions.

        Raises:
            ModelError: vLLM is not installed, or supports neither the model nor a memory of that size.
        """
        self._policy, self._pass_tokens = policy, pass_tokens
        arguments = vllm_arguments(policy, batch_tokens)
        self._sleeps = bool(arguments.get("enable_sleep_mode"))
        self._weights = WeightFiles(policy, arguments["dtype"], ranks)
        self._form = tempfile.TemporaryDirectory(prefix="calibrl-form-")
        policy.save_form(Path(self._form.name))
        self._server = VLLMServer(_options(self._form.name, arguments), ENVIRONMENT | _own_gpu(policy.device))
        try:
            self._server.start()
        except ServerError as error:
            self.close()
            raise ModelError(f"rollout.engine: vllm_server does not start with this model: {error}") from error
        self._files: list[str] = []
        self._version, self._restarts = 0, 0
        self._sampling = False
        self._rest()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Pass the policy's weights to the server: see `RolloutEngine.sampling`. Outside, it leaves the GPU to the
        trainer.
        """
        self._files = self._weights.write()
        self._version += 1
        self._update()
        with self._policy.weights.gathered():  # for `_score`
            self._sampling = True
            try:
                yield
            finally:
                self._sampling = False
        self._rest()

    def _rest(self) -> None:
        if self._sleeps:
            self._server.call("POST", "/sleep", level="1")

    def _update(self) -> None:
        """Load the weights, in another start of the server if need be.

        Raises:
            ServerError: see `_restart`.
        """
        while True:
            try:
                self._load_weights()
                return
            except ServerError as error:
                self._restart(error)

    def _load_weights(self) -> None:
        """Let the server read the files, and clear everything computed with earlier weights: prefixes and images."""
        if self._sleeps:
            self._server.call("POST", "/wake_up")
        self._server.call("POST", "/pause", mode="wait", clear_cache="true")
        self._server.call("POST", "/start_weight_update")
        self._server.call("POST", "/update_weights", {"update_info": {"paths": self._files}})
        self._server.call("POST", "/finish_weight_update", {"weight_version": str(self._version)})
        self._server.call("POST", "/resume")

    def _restart(self, cause: ServerError) -> None:
        """Start the server again: after a failed update, even one that seems to succeed next can leave wrong weights.

        Raises:
            ServerError: too many restarts, or the server does not start.
        """
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise ServerError(f"vLLM's server failed {self._restarts} times: {cause}: {self._server.log_end()}")
        self._server.kill()
        self._server.start()

    @torch.no_grad()
    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        """Sample: see `RolloutEngine.generate`.

        Raises:
            StaleWeightsError: the server's weights are not the policy's.
            ModelError: vLLM reads a prompt as other tokens than the trainer, or refuses a request.
            ServerError: the server failed too often.
        """
        if not self._sampling:
            raise StaleWeightsError("the server has the weights of an earlier step: sample within `sampling()`")
        bodies = [self._body(place, example, request) for place, example in enumerate(examples)]
        try:
            answers = self._answers(bodies)
        except RefusedError as error:
            raise ModelError(f"rollout.engine: {error}; use the engine shared_prefill with this model") from error
        choices = []
        for example, answer in zip(examples, answers, strict=True):
            check_prompt(self._policy, example, answer["prompt_token_ids"])
            found = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            choices += found * (request.group_size // len(found))
        for choice in choices:
            if {span["version"] for span in choice["weight_versions"]} != {str(self._version)}:
                raise StaleWeightsError(f"vLLM sampled with weights {choice['weight_versions']}, not {self._version}")
        buffers = self._buffers(choices)
        self._score(examples, buffers, request)
        return buffers.rollouts(self._policy, request.group_size)

    def _body(self, place: int, example: Example, request: SamplingRequest) -> dict[str, Any]:
        tokens, images = self._policy.encoder.unexpanded(example)
        row = request.first_row + place * request.group_size
        seed = int(np.random.SeedSequence([*request.seed, row]).generate_state(1, np.uint64)[0] >> np.uint64(2))
        body: dict[str, Any] = {
            "token_ids": tokens,
            "return_token_ids": True,
            "sampling_params": {
                "n": request.group_size if request.temperature else 1,  # vLLM draws a greedy completion once
                "seed": seed,
                "temperature": request.temperature,
                "max_tokens": request.max_tokens,
                **request.sampling.model_dump(include=set(FILTERS)),
                "logprobs": 0,
                "stop_token_ids": sorted(self._policy.stop_ids),
                "ignore_eos": True,
                "detokenize": False,
                "logit_bias": {str(token): BAN for token in self._policy.banned.nonzero().flatten().tolist()},
            },
        }
        if images:
            body["content_parts"] = [{"type": "image_url", "url": _data_url(image)} for image in images]
        return body

    def _answers(self, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """Return the server's answers. What a failing server loses is asked again."""
        answers: dict[int, Any] = {}
        while len(answers) < len(bodies):
            missing = [place for place in range(len(bodies)) if place not in answers]
            with ThreadPoolExecutor(min(len(missing), REQUESTS_AT_ONCE)) as pool:
                asked = {pool.submit(self._ask, bodies[place]): place for place in missing}
                lost = self._collect(asked, answers)
            if lost:
                self._restart(lost)
                self._update()
        return [answers[place] for place in range(len(bodies))]

    def _ask(self, body: dict[str, Any]) -> Any:
        return self._server.call("POST", "/inference/v1/generate", body, seconds=None)

    def _collect(self, asked: dict[Future[Any], int], answers: dict[int, Any]) -> ServerError | None:
        """Add the answers as they come; return the error of a request that was lost.

        A worker can hang while the server says that it is healthy, so the worker itself is asked.
        """
        pending, lost = {*asked}, None
        while pending:
            done, pending = wait(pending, PROBE_SECONDS, FIRST_COMPLETED)
            for future in done:
                try:
                    answers[asked[future]] = future.result()
                except ServerError as error:
                    lost = error
                except RefusedError:
                    self._server.kill()  # the run ends: no answer is awaited
                    raise
            if not done:
                try:
                    self._server.call("POST", "/collective_rpc", {"method": "calibrl_answer"}, seconds=PROBE_SECONDS)
                except ServerError:
                    self._server.kill()  # the requests that wait for it fail now
        return lost

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

    def _score(self, examples: Sequence[Example], buffers: TokenBuffers, request: SamplingRequest) -> None:
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
        self._server.close()
        self._weights.close()
        self._form.cleanup()


def _options(folder: str, arguments: dict[str, Any]) -> list[str]:
    """Return the command line of vLLM's server."""
    fixed = {
        "model": folder,
        "weight_transfer_config": json.dumps({"backend": "calibrl_files"}),
        "worker_extension_cls": "calibrl_core.rollout.vllm_worker.WorkerExtension",
        "logprobs_mode": "processed_logprobs",  # those of the distribution that was sampled
        "generation_config": "vllm",  # no defaults of the model's own
        "enable_scale_out": True,  # requests of tokens and images
        "disable_uvicorn_access_log": True,
    }
    options = []
    for name, value in (fixed | arguments).items():
        if value is False:
            continue
        options.append("--" + name.replace("_", "-"))
        if value is not True:
            options.append(str(value).removeprefix("torch."))
    return options


def _own_gpu(device: torch.device) -> dict[str, str]:
    """Return the variable that shows a server only the GPU of this process."""
    if device.type != "cuda":
        return {}
    return {"CUDA_VISIBLE_DEVICES": f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"}


def _data_url(image: Any) -> str:
    content = io.BytesIO()
    image.save(content, "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
