"""Family image/: whether the completions depend on their images."""

from dataclasses import fields

from calibrl_core.diagnostics.base import StepBatch, mean_if_any


def image(batch: StepBatch) -> dict[str, float]:
    """Return the mean image gain of a completion, in nats, per change of the image; empty if it was not measured."""
    gains = batch.image_gains
    if gains is None:
        return {}
    values: dict[str, float] = {}
    for change in fields(gains):
        of_tokens = getattr(gains, change.name).double()  # [B, T]
        measured = (batch.rollouts.mask & ~of_tokens.isnan()).any(-1)  # [B]
        values |= mean_if_any(f"image/gain_{change.name}", of_tokens[measured].nansum(-1))
    return values
