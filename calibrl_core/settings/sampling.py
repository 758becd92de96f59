"""Settings of sampling, in training, validation and evaluations."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from calibrl_core.settings.base import StrictSettings

StopString = Annotated[str, Field(min_length=1, max_length=200)]


class SamplingSettings(StrictSettings):
    """Filters of the sampled distribution, and strings that end a completion."""

    top_k: int = Field(0, ge=0, le=1_000_000, description="Sample from the top_k most likely tokens only. 0: no limit.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Sample from the smallest set of most likely tokens whose probabilities sum to at least top_p. "
        "1: no limit.",
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Sample only tokens that have at least min_p times the probability of the most likely token. "
        "0: no limit.",
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Divisor of the positive logits, and factor of the negative logits, of all tokens that the prompt "
        "or the completion has already. 1: no penalty.",
    )
    stop: tuple[StopString, ...] = Field(
        (),
        max_length=16,
        description="Strings that end a completion, like the end of a turn. The string stays in the completion.",
    )

    @property
    def keeps_distribution(self) -> bool:
        """Return true if tokens are sampled from the policy's own distribution."""
        return self.top_k == 0 and self.top_p == self.repetition_penalty == 1 and self.min_p == 0


PLAIN = SamplingSettings()
ImportanceCorrection = Literal[
    "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask", "none"
]


HOTTEST_SERVED = 2  # temperature; vLLM's server refuses more


class EngineSettings(SamplingSettings):
    """Sampling of completions, in training and in evaluations."""

    max_completion_tokens: int = Field(
        4096, ge=1, le=131072, description="Maximum tokens per completion. A longer completion is truncated."
    )
    batch_tokens: int = Field(
        131_072,
        ge=1,
        description="Maximum tokens that are decoded together: prompt and longest possible completion of each row.",
    )
    engine: Literal["shared_prefill", "vllm_server"] = Field(
        "shared_prefill",
        description="shared_prefill: the trainer's own engine. vllm_server: vLLM servers, if vLLM is installed, beside "
        "the processes of the trainer.",
    )
    server_gpus: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Number of GPUs, the job's last ones, that only the servers of the engine vllm_server use; each "
        "other GPU has a process of the trainer. On a CPU: number of processes of servers. None: each process of the "
        "trainer has a server on its own GPU.",
    )
    tensor_parallel: int = Field(
        1,
        ge=1,
        le=64,
        description="GPUs per server, which share its weights. It must divide server_gpus. 1: a server per GPU.",
    )

    @field_validator("engine", mode="before")
    @classmethod
    def _still_exists(cls, engine: Any) -> Any:
        if engine == "vllm":
            raise ValueError("vllm, in the process of the trainer, was removed; use vllm_server")
        return engine

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if self.engine != "vllm_server" and self.server_gpus:
            raise ValueError("server_gpus: only the engine vllm_server has servers; set engine, or remove server_gpus")
        if (self.server_gpus or 1) % self.tensor_parallel:
            raise ValueError(
                f"tensor_parallel: {self.tensor_parallel} must divide server_gpus ({self.server_gpus or 'none'}); "
                "change one of them"
            )
        return self

    def trainer_gpus(self, gpus: int) -> int:
        """Return the number of a job's GPUs that have a process of the trainer."""
        return max(0, gpus - (self.server_gpus or 0))

    @property
    def samples_ahead(self) -> bool:
        """Return true if the engine samples while the trainer updates."""
        return False

    def check_served(self, field: str, temperature: float) -> None:
        """Check a temperature.

        Raises:
            ValueError: the engine does not permit it.
        """
        if self.engine == "vllm_server" and temperature > HOTTEST_SERVED:
            raise ValueError(
                f"{field}: the engine vllm_server permits {HOTTEST_SERVED} at most; lower it, or use shared_prefill"
            )


class RolloutSettings(EngineSettings):
    """Sampling of completions in training."""

    group_size: int = Field(10, ge=2, le=256, description="Rollouts per prompt. An advantage needs at least two.")
    temperature: float = Field(
        1.0, gt=0, le=10, description="Divisor of the logits, for sampling and for all log-probabilities."
    )
    importance_correction: ImportanceCorrection = Field(
        "token_truncate",
        description="Weight of the policy loss that corrects the difference between sampler and trainer. r: the "
        "probability of a token under the trainer / under the sampler. token_truncate: r, at most importance_cap. "
        "token_mask: r, and 0 above importance_cap. sequence_truncate, sequence_mask: the same with the product of r "
        "over the completion. geometric_mask: 1, and 0 for a completion whose geometric mean of r is outside "
        "1 / importance_cap to importance_cap. none: 1. Used in bfloat16, with vLLM, and with top_k, top_p, "
        "min_p or repetition_penalty; otherwise the engine shared_prefill in float32 needs no correction.",
    )
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="Limit of importance_correction. With geometric_mask use a value near 1, such as 1.001.",
    )
    max_staleness: int = Field(
        0,
        ge=0,
        le=1,
        description="Steps by which the weights that sample are older than those that are updated. 1: while a step "
        "updates, the engine vllm_server samples the rollouts of the next step with the weights from before this "
        "update; importance_correction corrects for the difference. 0: sampling and update take turns.",
    )

    @model_validator(mode="after")
    def _can_sample_ahead(self) -> Self:
        if self.samples_ahead and self.engine != "vllm_server":
            raise ValueError(
                "max_staleness: only the engine vllm_server samples during an update; set engine to vllm_server, or "
                "max_staleness to 0"
            )
        if self.samples_ahead and self.importance_correction == "none":
            raise ValueError(
                "max_staleness: rollouts of earlier weights need a correction; set importance_correction to "
                "token_truncate, or max_staleness to 0"
            )
        return self

    @property
    def samples_ahead(self) -> bool:
        """Return true if the engine samples while the trainer updates."""
        return self.max_staleness > 0


class EvaluateRollout(EngineSettings):
    """Sampling of completions in an evaluation."""

    samples: int = Field(8, ge=1, le=1024, description="Sampled completions per prompt.")
    greedy: bool = Field(True, description="Also generate one greedy completion per prompt.")
    temperature: float = Field(1.0, gt=0, le=10, description="Divisor of the logits for sampling.")
