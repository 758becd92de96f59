"""Parts of an update: a config, its gradients, and rows of probabilities for the token losses."""

import copy
from typing import Any

import torch
from torch import Tensor

from calibrl_core.algorithms.loss_batch import LossBatch
from calibrl_core.config import TrainConfig
from calibrl_core.models.policy import Policy
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.update import Updater

GROUP = 3  # rollouts per prompt


def config(algorithm: Any, **changes: Any) -> Any:
    required = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    return TrainConfig.model_validate({**required, "algorithm": algorithm, **changes})


def gradients(policy: Policy, batch: Any, algorithm: Any, micro_batch_rows: Any = None, step: int = 0) -> Any:
    """The gradient that a step ends with (one mini-batch, nothing clipped), and its metrics."""
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    settings = config(algorithm, micro_batch_rows=micro_batch_rows, optimizer={"max_grad_norm": 1e9})
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=0.0), settings.optimizer)
    metrics, _ = Updater(twin, gradient, settings).update(batch, step)
    return {name: parameter.grad for name, parameter in twin.model.named_parameters()}, metrics


def numbers(values: list[Any]) -> Tensor:
    """Return a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def loss_batch(
    *,
    probabilities: list[Any],
    old: list[Any] | None = None,
    advantages: list[float],
    mask: list[Any] | None = None,
    experts: list[bool] | None = None,
) -> LossBatch:
    """Rows of token probabilities under the current and the old policy (as current where None); no guidance."""
    logprobs = numbers(probabilities).log().requires_grad_()
    rows = logprobs.shape[0]
    full = torch.ones(logprobs.shape, dtype=torch.bool)
    return LossBatch(
        logprobs=logprobs,
        old_logprobs=logprobs.detach() if old is None else numbers(old).log(),
        advantages=numbers(advantages),
        completion_mask=full if mask is None else torch.tensor(mask),
        passed=torch.zeros(rows, dtype=torch.bool),
        is_expert=torch.zeros(rows, dtype=torch.bool) if experts is None else torch.tensor(experts),
        expert_logprobs=torch.zeros((rows, 0), dtype=torch.float64),
        expert_mask=torch.zeros((rows, 0), dtype=torch.bool),
    )


def gradient_of(algorithm: Any, given: LossBatch) -> Tensor:
    """Return the gradient of the sum of all token losses, `[B, T]`."""
    (gradient,) = torch.autograd.grad(algorithm.token_losses(given).policy.sum(), given.logprobs)
    return gradient
