"""The rollout engine on vLLM (extra `vllm`).

vLLM runs the model with continuous batching and paged memory. A logits processor draws every token, as the other engine
does (`sampling.draw`), records its values, and leaves vLLM no other choice. Banned tokens, temperatures, filters, stop
strings, seeds, log-probabilities and entropies are therefore exactly CalibRL's. Only the logits can differ, because
vLLM uses other kernels than the trainer; the learner corrects for the difference (`calibrl_core.step.importance`).

vLLM keeps a copy of the weights. `sampling` replaces it, a layer at a time, with a version number that vLLM's side must
report after each `generate`. It is always replaced: torch does not show changed weights, since the fused AdamW does
not change `Tensor._version`.

Several processes have an engine each, which samples the prompts of its process. They exchange only weights.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.sampling import Uniforms, draw, token_sets
from calibrl_core.rollout.stop_strings import StopStrings
from calibrl_core.rollout.token_buffers import TokenBuffers

BLOCK_TOKENS = 32  # block size of vLLM's key-value memory; attention on a CPU needs a multiple of 32
MAX_ROWS = 256  # decoded at the same time
FREE_SHARE = 0.5  # of the free GPU memory, for vLLM: it only compares, since the size of its memory is given
ROW = "calibrl_row"  # key of a request's number within one `generate`


class StaleWeightsError(RuntimeError):
    """vLLM sampled from other weights than the policy's."""


class VLLMEngine:
    """A vLLM engine in the trainer's process."""

    def __init__(self, policy: Policy, batch_tokens: int) -> None:
        """Start vLLM. `batch_tokens` sizes its key-value memory; one row of the model's maximum length always fits.

        Raises:
            ModelError: vLLM is not installed, or supports neither the model nor a memory of that size.
        """
        self._policy = policy
        self._drawing = _Drawing(policy)
        self._folder = Path(tempfile.mkdtemp(prefix="calibrl-vllm-"))  # also read after the start
        self._tidy = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._in_group = distributed.is_initialized()
        self._sleeps = policy.device.type == "cuda"
        policy.save_form(self._folder)
        self._llm = _start(self._folder, policy, batch_tokens, self._drawing)
        if self._in_group:
            # Its client destroys the process group, here the trainer's, when it is closed or collected.
            self._llm.llm_engine.engine_core._finalizer.detach()
        self._version = 0  # version of the weights passed last
        self._sampling = False
        self._rest()

    @contextmanager
    def sampling(self, version: int) -> Iterator[None]:
        """Pass the policy's weights to vLLM, and clear everything computed with earlier ones: see
        `RolloutEngine.sampling`. Outside, vLLM leaves the GPU to the trainer.
        """
        self._version = version
        if self._sleeps:
            self._llm.wake_up()
        self._llm.collective_rpc(_load, args=(self._policy.saved_tensors(), self._version))
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()
        self._sampling = True
        try:
            yield
        finally:
            self._sampling = False
        self._rest()

    def _rest(self) -> None:
        if self._sleeps:
            self._llm.sleep(level=1)  # level 2 drops the weights, and with them buffers that are in no file

    @torch.no_grad()
    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        """Sample: see `RolloutEngine.generate`.

        Raises:
            StaleWeightsError: vLLM's weights are not the policy's.
            ModelError: vLLM reads a prompt as other tokens than the trainer.
        """
        from vllm import SamplingParams

        if not self._sampling:
            raise StaleWeightsError("vLLM has the weights of an earlier step: sample within `sampling()`")
        group_size = request.group_size
        self._drawing.begin(len(examples) * group_size, request)
        stops = sorted(self._policy.stop_ids)
        params = [
            SamplingParams(
                temperature=0.0,  # the processor leaves a single token
                max_tokens=request.max_tokens,
                stop_token_ids=stops,
                ignore_eos=True,
                detokenize=False,
                extra_args={ROW: row},
            )
            for row in range(len(examples) * group_size)
        ]
        prompts = [prompt for prompt in map(self._prompt, examples) for _ in range(group_size)]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        self._check(examples, outputs)
        return self._drawing.buffers.cut().rollouts(self._policy, group_size, request.sampling.stop)

    def close(self) -> None:
        """Free the memory. The engine cannot be used afterwards."""
        client = self._llm.llm_engine.engine_core
        if self._in_group:
            client.engine_core.model_executor.shutdown()
        else:
            client.shutdown()
        self._tidy()

    def _prompt(self, example: Example) -> dict[str, Any]:
        tokens, images = self._policy.encoder.unexpanded(example)
        return {"prompt_token_ids": tokens, **({"multi_modal_data": {"image": images}} if images else {})}

    def _check(self, examples: Sequence[Example], outputs: Sequence[Any]) -> None:
        versions = self._llm.collective_rpc(_version)
        if versions != [self._version]:
            raise StaleWeightsError(f"vLLM sampled with weights {versions}, not with the policy's ({self._version})")
        if not self._drawing.recorded([list(output.outputs[0].token_ids) for output in outputs]):
            raise RuntimeError("vLLM did not say the tokens that were drawn for it: is it another version?")
        for example, output in zip(examples, outputs[:: len(outputs) // len(examples)], strict=True):
            check_prompt(self._policy, example, output.prompt_token_ids)


def check_prompt(policy: Policy, example: Example, tokens: Sequence[int]) -> None:
    """Check the tokens that vLLM made of a prompt.

    Raises:
        ModelError: they are not the trainer's.
    """
    if list(tokens) != policy.encode([example]).input_ids[0].tolist():
        raise ModelError(
            f"rollout.engine: vLLM reads the prompt of {example.id} as other tokens than the trainer does; "
            "use the engine shared_prefill with this model"
        )


def _load(worker: Any, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
    """Load the weights; runs on vLLM's side."""
    worker.calibrl_weights = None  # in case loading fails
    worker.model_runner.reload_weights(weights_iterator=iter(tensors))
    worker.calibrl_weights = version


def _version(worker: Any) -> int | None:
    version: int | None = getattr(worker, "calibrl_weights", None)
    return version


def _start(folder: Path, policy: Policy, batch_tokens: int, drawing: _Drawing) -> Any:
    try:
        from vllm import LLM, envs
        from vllm.v1.executor.uniproc_executor import UniProcExecutor
    except ImportError as error:
        raise ModelError(
            f"rollout.engine: vllm can't be imported ({error}); pip install 'calibrl[vllm]', or use shared_prefill"
        ) from error
    envs.VLLM_ENABLE_V1_MULTIPROCESSING = False  # same process: weights and draws are passed in memory
    envs.VLLM_USE_V2_MODEL_RUNNER = False  # it has another kind of logits processors
    try:
        return LLM(
            str(folder),
            # Given by name, vLLM refuses the first on a CPU. The second takes the launcher's processes for its own.
            distributed_executor_backend=UniProcExecutor if not distributed.is_initialized() else "external_launcher",
            async_scheduling=False,  # a draw needs the number of earlier tokens
            logits_processors=[_processor(drawing)],
            **vllm_arguments(policy, batch_tokens),
            **beside_policy(policy.device),
        )
    except ValueError as error:
        raise ModelError(f"rollout.engine: vllm does not take this model or rollout.batch_tokens: {error}") from error


@dataclass(frozen=True)
class _Row:
    """A row that vLLM decodes."""

    number: int  # within one `generate`
    completion: list[int]  # its tokens so far
    uniforms: Tensor  # [max_tokens] float64
    repeated: Tensor | None  # [V] bool, tokens of prompt and completion; None without a repetition penalty


def served_dtype(policy: Policy) -> torch.dtype:
    """Return the precision of vLLM's copy of the weights."""
    return torch.bfloat16 if policy.bfloat16 else torch.float32


def vllm_arguments(policy: Policy, batch_tokens: int, tensor_parallel: int = 1) -> dict[str, Any]:
    """Return vLLM's arguments for the policy: precision, and memory for keys and values of `batch_tokens` tokens.

    `tensor_parallel`: processes that share the heads of the attention.

    Raises:
        ModelError: vLLM computes other logits than the model's class in transformers.
    """
    config = policy.model.config.get_text_config()
    if getattr(config, "logit_scale", None) not in (None, policy.head.scale):
        kind = policy.model.config.model_type
        raise ModelError(
            f"rollout.engine: vLLM multiplies the logits of {kind} by {config.logit_scale}, and transformers does not; "
            "use shared_prefill"
        )
    dtype = served_dtype(policy)
    longest: int = config.max_position_embeddings
    blocks = -(-max(batch_tokens, longest) // BLOCK_TOKENS) + 1  # vLLM reserves one
    heads = -(-(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) // tensor_parallel)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "load_format": "dummy",  # `sampling` passes the weights
        "dtype": dtype,
        "enforce_eager": policy.device.type == "cpu",  # compilation there takes minutes
        "block_size": BLOCK_TOKENS,
        "kv_cache_memory_bytes": 2 * config.num_hidden_layers * heads * width * dtype.itemsize * BLOCK_TOKENS * blocks,
        "max_model_len": longest,
        "max_num_seqs": max(1, min(MAX_ROWS, batch_tokens // BLOCK_TOKENS)),
    }


def beside_policy(device: torch.device) -> dict[str, Any]:
    """Return vLLM's arguments for a GPU that holds the policy already: vLLM refuses to start if less memory is free
    than the share that it may use, 0.92 of the GPU by default.
    """
    if device.type != "cuda":
        return {}
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_utilization": FREE_SHARE * free / total, "enable_sleep_mode": True}


class _Drawing:
    """Token draws of one `generate`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def begin(self, rows: int, request: SamplingRequest) -> None:
        """Start with empty buffers, `[rows, max_tokens]`."""
        self.buffers = TokenBuffers.empty(rows, request.max_tokens, self._policy)
        self._request = request
        self._stop_strings = StopStrings(self._policy.tokenizer, request.sampling.stop)

    def row(self, number: int, prompt: Sequence[int], completion: list[int]) -> _Row:
        """Return a row from its prompt's tokens and its completion's, a list that vLLM extends."""
        width, policy = self.buffers.tokens.shape[1], self._policy
        uniforms = Uniforms(self._request.seed, [self._request.first_row + number]).block(width)[:, 0]
        repeated = None
        if self._request.sampling.repetition_penalty != 1:
            tokens = torch.tensor([prompt], device=policy.device)
            repeated = token_sets(tokens, torch.ones_like(tokens).bool(), len(policy.banned))[0]
        return _Row(number, completion, uniforms, repeated)

    def draw(self, logits: Tensor, rows: Sequence[_Row]) -> Tensor:
        """Draw the next token of each row from logits `[R, V]`; return logits `[R, V]` that permit only it.

        A row whose prompt vLLM has read only in part is drawn again later, from the same random number. vLLM knows no
        stop string: a row that has ended with one gets a stop token, which is not recorded.
        """
        device, steps = logits.device, [len(row.completion) for row in rows]
        uniforms = torch.stack([row.uniforms[step] for row, step in zip(rows, steps, strict=True)]).to(device)
        drawn = draw(
            logits,
            self._request.temperature,
            self._policy.banned,
            uniforms,
            self._request.sampling,
            self._repeated(rows),
        )
        stopped = self._stop_strings.end([row.completion for row in rows])
        counts = ~torch.tensor(stopped, device=device)
        place = (torch.tensor([row.number for row in rows], device=device), torch.tensor(steps, device=device))
        self.buffers.put(place, drawn, counts)
        said = drawn.tokens.where(counts, min(self._policy.stop_ids))
        return torch.full_like(logits, -torch.inf).scatter_(1, said[:, None], 0.0)

    def _repeated(self, rows: Sequence[_Row]) -> Tensor | None:
        """Return the tokens that prompts and completions have, `[R, V]` bool; None without a repetition penalty."""
        sets = []
        for row in rows:
            if row.repeated is not None:
                row.repeated[row.completion[-1:]] = True
                sets.append(row.repeated)
        return torch.stack(sets) if sets else None

    def recorded(self, completions: Sequence[list[int]]) -> bool:
        """Return if each completion has the tokens recorded for it; behind a stop string it can have one more."""
        extra = int(bool(self._stop_strings))
        lengths = self.buffers.mask.sum(-1).tolist()
        return all(
            completion[:length] == row[:length] and len(completion) <= length + extra
            for completion, row, length in zip(completions, self.buffers.tokens.tolist(), lengths, strict=True)
        )


def _processor(drawing: _Drawing) -> type:
    """Return the class of vLLM's logits processor."""
    from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

    class Draws(LogitsProcessor):  # type: ignore[misc,unused-ignore]
        """Maps each place of vLLM's batch to a row of `drawing`."""

        def __init__(self, *_: Any) -> None:
            self._rows: dict[int, _Row] = {}

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: BatchUpdate | None) -> None:
            def row(params: Any, prompt: list[int], output: list[int]) -> _Row:
                return drawing.row(params.extra_args[ROW], prompt, output)

            process_dict_updates(self._rows, batch_update, row)

        def apply(self, logits: Tensor) -> Tensor:
            if not self._rows:  # vLLM's warm-up run
                return logits
            return drawing.draw(logits, [self._rows[place] for place in range(len(logits))])

    return Draws
