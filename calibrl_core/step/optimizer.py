"""AdamW over fp32 master weights, and the learning rate as a plain function of the step."""

import math

import torch

from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.step.adamw_8bit import make_adamw_8bit

MOST_SKIPPED = 10  # updates in a row


class NonFiniteError(RuntimeError):
    """Too many updates in a row had a gradient that is not finite: the run can't go on."""


class GradientStep:
    """Sums the gradient over the processes, clips and applies it; one that is not finite changes no weight."""

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        settings: OptimizerSettings,
        ranks: Ranks = ALONE,
    ) -> None:
        self._parameters = list(policy.trained.values())
        self._optimizer = optimizer
        self._ranks = ranks
        self._weights = policy.weights
        self._max_norm = settings.max_grad_norm
        self._skipped_in_a_row = 0

    def clear(self) -> None:
        """Clear the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def take_gradients(self) -> list[torch.Tensor | None]:
        """Return this process's part of the summed gradient per parameter (None if it has none), and clear it.

        The tensors are not copied: they stay on the device, beside the next gradient.
        """
        self._weights.sum_gradients(self._parameters, self._ranks)
        taken = [None if one.grad is None else self._weights.local_shard(one.grad) for one in self._parameters]
        self.clear()
        return taken

    def apply(self) -> tuple[float, bool]:
        """Apply the gradient; return its L2 norm before clipping, and True if it was applied.

        A gradient that is not finite is skipped. If no row has a gradient, the gradient is 0: momentum and weight
        decay still apply, as in a plain loop. Every process must call this equally often; the result is the same in
        all processes.

        Raises:
            NonFiniteError: ten gradients in a row were not finite.
        """
        self._weights.sum_gradients(self._parameters, self._ranks)
        if all(parameter.grad is None for parameter in self._parameters):
            for parameter in self._parameters:
                parameter.grad = torch.zeros_like(parameter)
        norm = self._weights.full(torch.nn.utils.clip_grad_norm_(self._parameters, self._max_norm)).item()
        if math.isfinite(norm):
            self._optimizer.step()
            self._skipped_in_a_row = 0
            return norm, True
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise NonFiniteError(f"the gradient was not finite in {MOST_SKIPPED} updates in a row; lower optimizer.lr")
        return norm, False


def make_optimizer(policy: Policy, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return AdamW over the trained weights. Moments have the dtype of the weights, or 8 bits.

    Raises:
        ModelError: as `make_adamw_8bit`.
    """
    if settings.kind == "adamw_8bit":
        return make_adamw_8bit(policy, settings)
    return torch.optim.AdamW(
        policy.trained.values(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters. torchao keeps it as a tensor, so that it compiles one kernel for all."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The rate of `step` (from 0) out of `steps`. A function of the step: a resumed run restores nothing."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    if settings.schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr
