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
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.own_folder import OwnFolder
from calibrl_core.rollout.servers import Servers
from calibrl_core.rollout.vllm import beside_policy, vllm_arguments
from calibrl_core.rollout.vllm_server import VLLMServer
from calibrl_core.settings.sampling import EngineSettings

ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # has the calls for new weights
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # each process imports `vllm_program`
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class ServerFolder:
    """The files that servers share: the model without its weights, sockets and logs. If all processes of a run ask the
    same servers, the first one makes the folder; otherwise each does.
    """

    def __init__(self, policy: Policy, settings: EngineSettings, ranks: Ranks) -> None:
        """Make the folder. Every process of the run must call this.

        Raises:
            LaunchError: the processes of the run are on several machines and ask the same servers.
        """
        self._policy, self._settings, self._ranks = policy, settings, ranks
        self._apart = settings.server_gpus is not None  # from the processes of the trainer
        self._leads = ranks.first or not self._apart
        if self._apart and len({*ranks.gather_everywhere(socket.gethostname())}) > 1:
            raise LaunchError("rollout.server_gpus: the processes of the run are on several machines; remove it")
        self._own = OwnFolder("calibrl-servers-", Path(tempfile.gettempdir())) if self._leads else None
        path = self._own.path if self._own else Path()
        self._path = ranks.from_first(path) if self._apart else path
        if self._leads:
            policy.save_form(self._form)

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
        arguments = vllm_arguments(policy, self._settings.batch_tokens, size)
        if not self._apart:
            arguments |= beside_policy(policy.device)
        sleep = bool(arguments.get("enable_sleep_mode")) and not self._settings.samples_ahead
        options = _options(self._form, arguments | {"enable_sleep_mode": sleep, "tensor_parallel_size": size})
        servers = [
            VLLMServer(self._path, number, options, ENVIRONMENT | gpus) for number, gpus in enumerate(self._gpus())
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
