"""Settings of a run: `TrainConfig` and `EvaluateConfig`. StrictSettings, bounded, and importable without torch."""

import math
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from calibrl_core.algorithms import CalibRL
from calibrl_core.algorithms.registry import Algorithm
from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import Curriculum, DataSource, TrainingData, check_weight, distinct_names
from calibrl_core.health.settings import HealthSettings
from calibrl_core.settings.base import StrictSettings, one_of
from calibrl_core.settings.image_changes import ImageChanges
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings, DiagnosticsSettings, SampleSettings
from calibrl_core.settings.sampling import EngineSettings, EvaluateRollout, RolloutSettings
from calibrl_core.settings.validation import ValidationSettings
from calibrl_core.verifiers import FormatReward, MathReward
from calibrl_core.verifiers.base import AnswerVerifier, judges_of
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy

RECOMPUTED_FROM = 1_000_000_000  # parameters
NEEDS_GPU = ("flash_attention_2", "flex")  # values of `model.attention`


class LoraSettings(StrictSettings):
    """Low-rank adapters (arXiv 2106.09685) through peft. Only the adapters are trained."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of each adapter.")
    alpha: float = Field(32, gt=0, description="Scale numerator: adapters are scaled by alpha / rank.")
    rslora: bool = Field(
        False, description="Scale adapters by alpha / sqrt(rank) instead: rank-stabilised (arXiv 2312.03732)."
    )
    dora: bool = Field(
        False,
        description="Also train the norm of each row of an adapted weight (DoRA, arXiv 2402.09353). Every pass "
        "computes these norms, which makes sampling by the trainer's own engine slower.",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Probability that an input of an adapter is set to 0. Only in the passes of the update: sampling, "
        "old log-probabilities and validation drop nothing, so ratios differ from 1 before any update.",
    )
    targets: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        (),
        max_length=1000,
        description="Names of the linear layers that get an adapter. Empty: all linear layers of the language model.",
    )


class ModelOptions(StrictSettings):
    """Training options of all kinds of models."""

    lora: LoraSettings | None = Field(None, description="Train only low-rank adapters. None: train all weights.")
    attention: Literal["auto", "sdpa", "flash_attention_2", "flex"] = Field(
        "auto",
        description="Kernels of the attention, in the vision tower too. auto: those that transformers chooses. sdpa: "
        "torch's own. flash_attention_2: the package flash-attn, in bfloat16. flex: torch's flex_attention, which "
        "skips pairs of tokens that do not see each other. These two need a GPU and were not tested on one. Except "
        "with flash_attention_2, completions share the computation of their prompt in the update.",
    )
    vision_attention: Literal["sdpa", "flash_attention_2", "flex"] | None = Field(
        None,
        description="Kernels of the attention in the vision tower. None: those of attention. Towers that attend within "
        "windows, such as that of Qwen2.5-VL, run all windows at once with flash_attention_2, and one after the other "
        "with sdpa. It does not change if completions share their prompt.",
    )
    quantization: Literal["nf4"] | None = Field(
        None,
        description="nf4: hold the linear layers of the language model in 4 bits (NormalFloat, double quantisation; "
        "arXiv 2305.14314), by bitsandbytes (the extra quantization). Only with lora, whose adapters are then trained "
        "on the quantised model; with the engine shared_prefill; not with parallel: fsdp. None: as precision.",
    )
    freeze_vision: bool = Field(False, description="Do not train the vision tower and its projection.")
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Recompute activations in the backward pass: less memory, about one third more time. auto: for "
        "models of 1 billion parameters or more whose layers can.",
    )

    @property
    def kernels(self) -> dict[str, str]:
        """Return the kernels of the attention that are set, by field."""
        named = {"attention": self.attention, "vision_attention": self.vision_attention or "auto"}
        return {field: kernels for field, kernels in named.items() if kernels != "auto"}

    def recomputes(self, parameters: int) -> bool:
        """Return if a model with this number of parameters recomputes its activations."""
        if self.gradient_checkpointing == "auto":
            return parameters >= RECOMPUTED_FROM
        return self.gradient_checkpointing


class BuiltinModel(ModelOptions):
    """A model that a seeded function creates, with random weights."""

    builtin: Literal["tiny-vlm"] = Field(
        description="Name of the model. tiny-vlm: Idefics3 with 1.2 million parameters and its standard processor."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the initial weights.")


class PathModel(ModelOptions):
    """A model saved by `save_pretrained` together with its processor, or a GGUF file."""

    path: str = Field(
        min_length=1,
        max_length=1024,
        description="Folder of a saved model with its processor or tokenizer, or a .gguf file, which is dequantised.",
    )


ModelSource = Annotated[
    Annotated[BuiltinModel, Tag("builtin")] | Annotated[PathModel, Tag("path")],
    one_of("builtin", "path"),
]

DEFAULT_REWARDS: tuple[Reward, ...] = (MathReward(), FormatReward())


def usable_rewards(rewards: tuple[Reward, ...]) -> None:
    """Check the verifiers of a run.

    Raises:
        ValueError: no verifier judges the answer, two verifiers have the same name, or they look for the answer in
            different places.
    """
    if not any(reward.judges_answer for reward in rewards):
        raise ValueError("name at least one verifier that judges the answer, such as {type: math}")
    labels = [reward.label for reward in rewards]
    if len(set(labels)) < len(labels):
        raise ValueError(f"rewards: two entries share a name ({', '.join(labels)}); metrics are kept by name")
    places = {judge.label: judge.answer_in for judge in judges_of(rewards) if isinstance(judge, AnswerVerifier)}
    if len({*places.values()}) > 1:
        named = ", ".join(f"{label} in {place}" for label, place in places.items())
        raise ValueError(f"rewards: the verifiers look for the answer in different places ({named}); set one answer_in")


Precision = Literal["auto", "float32", "bfloat16"]
ForwardPrecision = Annotated[
    Precision,
    Field(
        description="Precision of the forward pass. auto: bfloat16 on a GPU. In bfloat16 the weights of linear layers "
        "are bfloat16 too.",
    ),
]


class PromptSettings(PromptFormat):
    """Form of the prompts, and handling of prompts that are too long. Images count as their tokens."""

    max_tokens: int | None = Field(None, ge=1, description="Maximum tokens per prompt. None: no limit.")
    max_images: int | None = Field(None, ge=0, description="Maximum images per prompt. None: no limit.")
    too_long: Literal["error", "drop", "truncate"] = Field(
        "error",
        description="Handling of prompts with more tokens or images. error: refuse the data. drop: leave the rows out. "
        "truncate: cut the text of the question; a prompt with too many images is refused.",
    )


class Validation(ValidationSettings):
    """Validation during training: sampled accuracy on validation data."""

    data: DataSource


class TrainSettings(StrictSettings):
    """A training run, without its model and data."""

    algorithm: Algorithm = Field(default_factory=CalibRL)
    rewards: tuple[Reward, ...] = Field(DEFAULT_REWARDS, min_length=1, max_length=16)
    prompts: PromptSettings = Field(default_factory=PromptSettings)
    rollout: RolloutSettings = Field(default_factory=RolloutSettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    prompts_per_step: int = Field(480, ge=1, le=65536, description="Prompts (groups) per step.")
    micro_batch_tokens: int = Field(
        32_768, ge=1, description="Maximum tokens (prompts, completions, padding) per forward and backward pass."
    )
    micro_batch_rows: int | None = Field(
        None, ge=1, description="Maximum rows per forward and backward pass. None: no limit."
    )
    precision: Precision = Field(
        "auto",
        description="Precision of the forward and backward pass. auto: bfloat16 on a GPU. Weights and optimizer "
        "state stay float32.",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="Distribution over several processes. ddp: each process holds all weights. fsdp: the weights "
        "are sharded (FSDP2).",
    )
    shard_size: int | None = Field(
        None,
        ge=2,
        description="Number of processes that share one copy of the weights with parallel: fsdp, such as those of one "
        "machine (HSDP). It must divide the number of processes. None: all processes.",
    )
    cpu_offload: bool = Field(
        False,
        description="With parallel: fsdp, keep shards of weights, gradients and moments in host memory, and update the "
        "weights there. A pass copies the weights of a layer to its GPU.",
    )
    steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Number of steps of the run. None: epochs decides. Set one of the two."
    )
    epochs: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Number of passes over the data: the run has epochs x rows / prompts_per_step steps, rounded up. "
        "Rows that prompts.too_long or unearnable drops do not count. None: steps decides.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the data order and of sampling.")
    shuffle_data: bool = Field(True, description="Shuffle the rows in each epoch. False: keep the order of the data.")
    curriculum: Curriculum = Field(
        "none",
        description="Order of each epoch, easy rows first. pass_ratio: by this column of the data, which every row "
        "needs. measured: by the share of completions that passed when the row was last sampled; the first epoch has "
        "no such order. Rows of equal share keep the order of shuffle_data.",
    )
    unearnable: Literal["error", "drop"] = Field(
        "error",
        description="Handling of training rows whose answer no completion can earn, because a reward refuses even the "
        "answer itself. error: refuse the data. drop: leave the rows out, and list them in the log.",
    )
    data_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes per trainer process that prepare the images of the next step while a step runs, and "
        "those of a validation while it samples. 0: the trainer prepares them itself. None: one per spare CPU, at most "
        "4; 0 for small images.",
    )
    checkpoints: CheckpointSettings = Field(default_factory=CheckpointSettings)
    samples: SampleSettings = Field(default_factory=SampleSettings)
    diagnostics: DiagnosticsSettings = Field(default_factory=DiagnosticsSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        usable_rewards(self.rewards)
        self.algorithm.check(self)
        if (self.steps is None) == (self.epochs is None):
            which = "steps or epochs" if self.steps is None else "only one of steps and epochs"
            raise ValueError(f"steps: set {which}")
        for name in ("shard_size", "cpu_offload"):
            if getattr(self, name) and self.parallel != "fsdp":
                raise ValueError(f"{name}: only with parallel: fsdp; set it, or remove {name}")
        if self.curriculum == "measured" and not self.algorithm.samples:
            raise ValueError(
                f"curriculum: {self.algorithm.type} samples no completions, so nothing is measured; use pass_ratio"
            )
        self.rollout.check_served("rollout.temperature", self.rollout.temperature)
        if self.rollout.samples_ahead and not self.algorithm.samples:
            raise ValueError(f"rollout.max_staleness: {self.algorithm.type} samples no rollouts; set it to 0")
        if self.rollout.samples_ahead and self.curriculum == "measured":
            raise ValueError(
                "rollout.max_staleness: the order of curriculum: measured depends on the step that is still learned "
                "from; set max_staleness to 0, or use curriculum: pass_ratio"
            )
        return self

    def step_count(self, rows: int) -> int:
        """Return the number of steps of the run if its data has this many rows."""
        if self.steps is not None:
            return self.steps
        # As a fraction: 0.1 x 30 is more than 3 in floating point.
        return math.ceil(Fraction(str(self.epochs)) * rows / self.prompts_per_step)


def check_model(field: str, model: ModelOptions, precision: Precision, engine: EngineSettings) -> None:
    """Check the options of a model, which `field` of the config holds, against the settings of its run.

    Raises:
        ValueError: they exclude each other.
    """
    for name, kernels in model.kernels.items():
        if kernels == "flash_attention_2" and precision == "float32":
            raise ValueError(f"{field}.{name}: {kernels} computes in bfloat16 only; set precision to auto or bfloat16")
    if model.quantization is None:
        return
    what = f"{field}.quantization: {model.quantization}"
    if model.lora is None:
        raise ValueError(f"{what} weights cannot be trained; set {field}.lora, or remove quantization")
    if engine.engine != "shared_prefill":
        raise ValueError(f"{what} is not supported by the engine {engine.engine}; use the engine shared_prefill")


def check_training(settings: TrainSettings, model: ModelOptions, validation: ValidationSettings | None) -> None:
    """Check the settings of a training run against its model and its validation.

    Raises:
        ValueError: they exclude each other.
    """
    check_model("model", model, settings.precision, settings.rollout)
    if model.quantization is not None and settings.parallel == "fsdp":
        raise ValueError("model.quantization: quantised weights cannot be sharded; use parallel: ddp")
    if validation is not None:
        temperature = validation.rollout(settings.rollout).temperature
        settings.rollout.check_served("validation.temperature", temperature)


class TrainConfig(TrainSettings):
    """The complete configuration of `train`."""

    model: ModelSource
    data: TrainingData
    validation: Validation | None = None
    sandbox: SandboxPolicy = NO_PERMISSIONS

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_training(self, self.model, self.validation)
        if self.validation is not None:
            check_weight("validation.data", self.validation.data.weight)
        return self

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Return the sources of the training data."""
        return self.data if isinstance(self.data, tuple) else (self.data,)

    @property
    def validation_rollout(self) -> RolloutSettings:
        """Return how validation samples; without validation: as in training."""
        return self.rollout if self.validation is None else self.validation.rollout(self.rollout)


class EvaluateSettings(StrictSettings):
    """An evaluation, without its models and data."""

    rewards: tuple[Reward, ...] = Field(DEFAULT_REWARDS, min_length=1, max_length=16)
    prompts: PromptFormat = Field(default_factory=PromptFormat)
    rollout: EvaluateRollout = Field(default_factory=EvaluateRollout)
    image_changes: ImageChanges = ()
    precision: ForwardPrecision = "auto"
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of sampling and of the bootstrap.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        usable_rewards(self.rewards)
        self.rollout.check_served("rollout.temperature", self.rollout.temperature)
        return self


class EvaluateConfig(EvaluateSettings):
    """The complete configuration of `evaluate`."""

    models: tuple[ModelSource, ...] = Field(min_length=1, max_length=16)
    data: tuple[DataSource, ...] = Field(min_length=1, max_length=32)
    sandbox: SandboxPolicy = NO_PERMISSIONS

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        distinct_names(self.data)
        for index, source in enumerate(self.data):
            check_weight(f"data.{index}", source.weight)
        for index, model in enumerate(self.models):
            check_model(f"models.{index}", model, self.precision, self.rollout)
        return self
