"""The rollout engine on vLLM (extra `vllm`): vLLM runs the model, with continuous batching and paged memory; we draw.

vLLM's sampler is not used: a logits processor draws every token as the other engine does (`sampling.draw`), notes what
is known of it, and leaves vLLM no other choice. So banned tokens, temperatures, seeds, log-probabilities and entropies
are ours to the letter; what may differ is the logits, since vLLM's kernels are not the trainer's. The learner corrects
for that (`calibrl_core.step.importance`).

vLLM keeps weights of its own. They are replaced before every sampling, under a version number that vLLM's side must
name afterwards. Always, since torch does not tell whether they have changed: the fused AdamW leaves no trace in
`Tensor._version`.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.sampling import Uniforms, draw
from calibrl_core.rollout.token_buffers import TokenBuffers

BLOCK_TOKENS = 32  # of vLLM's memory, for keys and values; attention on a CPU wants a multiple of 32
MOST_ROWS = 256  # decoded at once
ROW = "calibrl_row"  # a request's number among those of one `generate`


class StaleWeightsError(RuntimeError):
    """vLLM sampled from other weights than the policy's."""


class VLLMEngine:
    """One vLLM engine in this process, beside the trainer."""

    def __init__(self, policy: Policy, batch_tokens: int) -> None:
        """`batch_tokens` sizes vLLM's memory for keys and values; one row of the model's greatest length fits always.

        Raises ModelError where vLLM is not installed, or takes neither the model nor a memory of that size.
        """
        self._policy = policy
        self._drawing = _Drawing(policy)
        self._folder = Path(tempfile.mkdtemp(prefix="calibrl-vllm-"))
        self._tidy = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        policy.save(self._folder)
        self._llm = _start(self._folder, policy, batch_tokens, self._drawing)
        for file in self._folder.glob("*.safetensors"):
            file.unlink()  # weights come from memory from now on; the processor's files are still read
        self._version = 0  # of the weights that were handed over last

    @torch.no_grad()
    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        """Sample: see `RolloutEngine.generate`.

        Raises:
            StaleWeightsError: vLLM's weights are not the policy's.
            ModelError: vLLM reads a prompt as other tokens than the trainer.
        """
        from vllm import SamplingParams

        self._sync()
        group_size = request.group_size
        self._drawing.begin(len(examples) * group_size, request)
        stops = sorted(self._policy.stop_ids)
        params = [
            SamplingParams(
                temperature=0.0,  # the only token that is left
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
        return self._drawing.buffers.cut().rollouts(self._policy, group_size)

    def close(self) -> None:
        """Give the memory back. The engine can't be used any more."""
        self._llm.llm_engine.engine_core.shutdown()
        self._tidy()

    def _prompt(self, example: Example) -> dict[str, Any]:
        tokens, images = self._policy.encoder.unexpanded(example)
        return {"prompt_token_ids": tokens, **({"multi_modal_data": {"image": images}} if images else {})}

    def _sync(self) -> None:
        """Hand the policy's weights over, and forget all that was computed with others."""
        self._version += 1
        self._llm.collective_rpc(_load, args=(self._policy.saved_tensors(), self._version))
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()

    def _check(self, examples: Sequence[Example], outputs: Sequence[Any]) -> None:
        versions = self._llm.collective_rpc(_version)
        if versions != [self._version]:
            raise StaleWeightsError(f"vLLM sampled with weights {versions}, not with the policy's ({self._version})")
        said = torch.tensor([token for output in outputs for token in output.outputs[0].token_ids])
        if not torch.equal(said, self._drawing.buffers.tokens[self._drawing.buffers.mask].cpu()):
            raise RuntimeError("vLLM did not say the tokens that were drawn for it: is it another version?")
        for example, output in zip(examples, outputs[:: len(outputs) // len(examples)], strict=True):
            if list(output.prompt_token_ids) != self._policy.encode([example]).input_ids[0].tolist():
                raise ModelError(
                    f"rollout.engine: vLLM reads the prompt of {example.id} as other tokens than the trainer does; "
                    "use the engine shared_prefill with this model"
                )


def _load(worker: Any, tensors: dict[str, Tensor], version: int) -> None:
    """Runs at vLLM's side."""
    worker.calibrl_weights = None  # should loading fail half-way
    worker.model_runner.reload_weights(weights_iterator=iter(tensors.items()))
    worker.calibrl_weights = version


def _version(worker: Any) -> int | None:
    found: int | None = getattr(worker, "calibrl_weights", None)
    return found


def _start(folder: Path, policy: Policy, batch_tokens: int, drawing: _Drawing) -> Any:
    try:
        from vllm import LLM, envs
        from vllm.v1.executor.uniproc_executor import UniProcExecutor
    except ImportError as error:
        raise ModelError(
            f"rollout.engine: vllm can't be imported ({error}); pip install 'calibrl[vllm]', or use shared_prefill"
        ) from error
    envs.VLLM_ENABLE_V1_MULTIPROCESSING = False  # in this process, where weights and draws are handed over in memory
    envs.VLLM_USE_V2_MODEL_RUNNER = False  # its logits processors are of another kind
    config = policy.model.config.get_text_config()
    dtype = torch.bfloat16 if policy.bfloat16 else torch.float32
    longest: int = config.max_position_embeddings
    blocks = -(-max(batch_tokens, longest) // BLOCK_TOKENS) + 1  # vLLM keeps one for itself
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    try:
        return LLM(
            str(folder),
            dtype=dtype,
            enforce_eager=policy.device.type == "cpu",  # compilation there takes minutes
            distributed_executor_backend=UniProcExecutor,  # by its name, vLLM would not have it on a CPU
            async_scheduling=False,  # a draw must know how many tokens came before
            block_size=BLOCK_TOKENS,
            kv_cache_memory_bytes=2 * config.num_hidden_layers * heads * width * dtype.itemsize * BLOCK_TOKENS * blocks,
            max_model_len=longest,
            max_num_seqs=max(1, min(MOST_ROWS, batch_tokens // BLOCK_TOKENS)),
            logits_processors=[_processor(drawing)],
        )
    except ValueError as error:
        raise ModelError(f"rollout.engine: vllm does not take this model or rollout.batch_tokens: {error}") from error


class _Drawing:
    """Draws the tokens of one `generate`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def begin(self, rows: int, request: SamplingRequest) -> None:
        """Start with empty buffers, `[rows, max_tokens]`."""
        self.buffers = TokenBuffers.empty(rows, request.max_tokens, self._policy)
        self._request = request

    def uniforms(self, row: int) -> Tensor:
        """The row's random numbers, `[max_tokens]` float64."""
        return Uniforms(self._request.seed, [self._request.first_row + row]).block(self.buffers.tokens.shape[1])[:, 0]

    def draw(self, logits: Tensor, rows: Sequence[int], steps: Sequence[int], uniforms: Tensor) -> Tensor:
        """Draw from logits `[R, V]` the token that is number `steps` of each of `rows`. `[R, V]`: logits that leave no
        other choice. A row whose prompt vLLM has only begun to read is drawn again, from the same number."""
        device, buffers = logits.device, self.buffers
        chosen, logprobs, entropies = draw(logits, self._request.temperature, self._policy.banned, uniforms.to(device))
        place = (torch.tensor(rows, device=device), torch.tensor(steps, device=device))
        buffers.tokens[place], buffers.mask[place] = chosen, True
        buffers.logprobs[place], buffers.entropies[place] = logprobs, entropies
        return torch.full_like(logits, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def _processor(drawing: _Drawing) -> type:
    """The class that vLLM makes its logits processor of."""
    from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

    class Draws(LogitsProcessor):  # type: ignore[misc,unused-ignore]
        """Knows which row of `drawing` stands at which place of vLLM's batch."""

        def __init__(self, *_: Any) -> None:
            self._rows: dict[int, tuple[int, list[int], Tensor]] = {}  # number, tokens so far, random numbers

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: BatchUpdate | None) -> None:
            def row(params: Any, _: Any, output: list[int]) -> tuple[int, list[int], Tensor]:
                number = params.extra_args[ROW]
                return number, output, drawing.uniforms(number)

            process_dict_updates(self._rows, batch_update, row)

        def apply(self, logits: Tensor) -> Tensor:
            if not self._rows:  # a rehearsal of vLLM's
                return logits
            rows = [self._rows[place] for place in range(len(logits))]
            steps = [len(output) for _, output, _ in rows]
            uniforms = torch.stack([numbers[step] for (_, _, numbers), step in zip(rows, steps, strict=True)])
            return drawing.draw(logits, [number for number, _, _ in rows], steps, uniforms)

    return Draws
