"""Layout of the vLLM servers of a run: one on the GPU of each process of the trainer, or some on GPUs of their own that
all processes ask.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from calibrl_core.distributed.ranks import LaunchError, Ranks
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.own_folder import OwnFolder
from calibrl_core.rollout.servers import Servers
from calibrl_core.rollout.vllm_server import VLLMServer
from calibrl_core.rollout.weight_files import ServedWeights
from calibrl_core.settings.sampling import EngineSettings

BLOCK_TOKENS = 32  # block size of vLLM's key-value memory; attention on a CPU needs a multiple of 32
MAX_ROWS = 256  # decoded at the same time
FREE_SHARE = 0.5  # of the free GPU memory, for vLLM: it only compares, since the size of its memory is given
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # has the calls for new weights
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # has the calls for adapters
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # each process imports `vllm_program`
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
ON_CPU = {"TORCH_COMPILE_DISABLE": "1"}  # the first requests would compile functions of the sampler for a minute


class ServerFolder:
    """The files that servers share: the model without its weights, sockets and logs. If all processes of a run ask the
    same servers, the first one makes the folder; otherwise each does.
    """

    def __init__(self, policy: Policy, settings: EngineSettings, ranks: Ranks, weights: ServedWeights) -> None:
        """Make the folder. Every process of the run must call this. `weights`: passed to the servers.

        Raises:
            LaunchError: the processes of the run are on several machines and ask the same servers.
        """
        self._policy, self._settings, self._ranks, self._weights = policy, settings, ranks, weights
        self._apart = settings.server_gpus is not None  # from the processes of the trainer
        self._leads = ranks.first or not self._apart
        if self._apart and len({*ranks.gather_everywhere(socket.gethostname())}) > 1:
            raise LaunchError("rollout.server_gpus: the processes of the run are on several machines; remove it")
        self._own = OwnFolder("calibrl-servers-", Path(tempfile.gettempdir())) if self._leads else None
        path = self._own.path if self._own else Path()
        self._path = ranks.from_first(path) if self._apart else path
        if self._leads:
            policy.save_form(self._form)
            for file in weights.form:
                (self._form / file.name).symlink_to(file)

    @property
    def _form(self) -> Path:
        return self._path / "form"

    def servers(self) -> Servers:
        """Return the servers that this process asks, not started.

        Raises:
            LaunchError: the machine has too few GPUs.
            ServerError: the name of the folder for temporary files is too long.
        """
        policy, size = self._policy, self._settings.tensor_parallel
        arguments = {**vllm_arguments(policy, self._settings.batch_tokens, size), **self._weights.arguments}
        if not self._apart:
            arguments |= beside_policy(policy.device)
        sleep = bool(arguments.get("enable_sleep_mode")) and not self._settings.samples_ahead
        options = _options(self._form, arguments | {"enable_sleep_mode": sleep, "tensor_parallel_size": size})
        environment = ENVIRONMENT if policy.device.type == "cuda" else ENVIRONMENT | ON_CPU
        servers = [
            VLLMServer(self._path, number, options, environment | gpus) for number, gpus in enumerate(self._gpus())
        ]
        return Servers(servers, self._ranks, leads=self._leads, sleep=sleep)

    def _gpus(self) -> list[dict[str, str]]:
        """Return for each server the variable that shows it its GPUs; no variable without GPUs."""
        of_servers = self._settings.server_gpus or 1
        size = self._settings.tensor_parallel
        if self._policy.device.type != "cuda":
            return [{}] * (of_servers // size)
        first = self._ranks.world if self._apart else torch.cuda.current_device()
        if first + of_servers > (count := torch.cuda.device_count()):
            raise LaunchError(
                f"rollout.server_gpus: {of_servers} GPUs beside those of {self._ranks.world} processes are more than "
                f"the {count} of this machine; lower it, or start fewer processes"
            )
        ids = [f"GPU-{torch.cuda.get_device_properties(first + place).uuid}" for place in range(of_servers)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(ids[start : start + size])} for start in range(0, of_servers, size)]

    def close(self) -> None:
        """Remove the folder, if this process made it."""
        if self._own:
            self._own.close()


def served_dtype(policy: Policy) -> torch.dtype:
    """Return the precision of a server's copy of the weights."""
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
    on_cpu = {
        "enforce_eager": True,  # compilation takes minutes
        # No pass ends within a prompt, for lack of memory either: vLLM would take back a draw from the seed of the row,
        # which random generators on a CPU cannot do, and end.
        "max_num_batched_tokens": BLOCK_TOKENS * blocks,
    }
    return {
        **(on_cpu if policy.device.type == "cpu" else {}),
        "dtype": dtype,
        "block_size": BLOCK_TOKENS,
        "kv_cache_memory_bytes": 2 * config.num_hidden_layers * heads * width * dtype.itemsize * BLOCK_TOKENS * blocks,
        "max_model_len": longest,
        "max_num_seqs": max_rows(batch_tokens),
    }


def max_rows(batch_tokens: int) -> int:
    """Return the number of completions that a server decodes at the same time; vLLM refuses a larger group."""
    return max(1, min(MAX_ROWS, batch_tokens // BLOCK_TOKENS))


def beside_policy(device: torch.device) -> dict[str, Any]:
    """Return vLLM's arguments for a GPU that holds the policy already: vLLM refuses to start if less memory is free
    than the share that it may use, 0.92 of the GPU by default.
    """
    if device.type != "cuda":
        return {}
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_utilization": FREE_SHARE * free / total, "enable_sleep_mode": True}


def _options(form: Path, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command line of vLLM's server."""
    fixed = {
        "model": form,
        "weight_transfer_config": json.dumps({"backend": "calibrl_files"}),
        "worker_extension_cls": "calibrl_core.rollout.vllm_worker.WorkerExtension",
        "logprobs_mode": "processed_logprobs",  # those of the distribution that was sampled
        "generation_config": "vllm",  # no defaults of the model's own
        "enable_scale_out": True,  # requests of tokens and images
        "disable_uvicorn_access_log": True,
    }
    options = []
    for name, value in (fixed | dict(arguments)).items():
        if value is False:
            continue
        options.append("--" + name.replace("_", "-"))
        if value is not True:
            options.append(str(value).removeprefix("torch."))
    return options
