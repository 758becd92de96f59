"""Settings of the optimizer."""

from typing import Literal

from pydantic import Field

from calibrl_core.settings.base import StrictSettings


class OptimizerSettings(StrictSettings):
    """AdamW over float32 master weights."""

    kind: Literal["adamw", "adamw_8bit"] = Field(
        "adamw",
        description="adamw: moments in float32, 8 bytes per trained parameter. adamw_8bit: moments in 8 bits (arXiv "
        "2110.02861), about 2 bytes, by torchao (the extra adamw-8bit). It compiles a kernel per shape in the first "
        "update, on a CPU with a C++ compiler. With parallel: fsdp, weights whose rows do not divide evenly among "
        "the processes have moments in float32.",
    )
    lr: float = Field(1e-6, gt=0, le=1, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay per update of the mean of the gradient.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay per update of the mean of the gradient's square.")
    eps: float = Field(
        1e-8, gt=0, le=1, description="Added to the root of the mean square of the gradient, by which it is divided."
    )
    max_grad_norm: float = Field(
        1.0, gt=0, description="Maximum 2-norm of the gradients. Larger gradients are scaled down."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Shape of the learning rate after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises linearly from 0.")
