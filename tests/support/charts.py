"""Results of evaluations for charts."""

from typing import Any

LABELS = {"accuracy": "Accuracy"}


def result(model: str, **metrics: float) -> dict[str, Any]:
    return {"model": model, "metrics": metrics}
