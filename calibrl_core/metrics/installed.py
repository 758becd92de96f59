"""Descriptions of metrics from other installed packages: the tuple `METRICS` in the module of a metric family.

Only names that the registry does not have are looked up here, so that other packages are loaded only if needed.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint

from calibrl_core.metrics.base import Metric, MetricFamily
from calibrl_core.plugins import ExtensionError, load

GROUP = "calibrl.metrics"


@cache
def installed_descriptions() -> tuple[MetricFamily, ...]:
    """Return the metric families of all installed packages that describe their metrics, sorted by name."""
    return tuple(load(GROUP, _family, light=True).values())


def _family(point: EntryPoint) -> MetricFamily:
    metrics = tuple(getattr(import_module(point.module), "METRICS", ()))
    for metric in metrics:
        if not (isinstance(metric, Metric) and metric.name.startswith(f"{point.name}/")):
            raise ExtensionError(
                f"METRICS must contain calibrl_core.metrics.Metric named {point.name}/..., not {metric}"
            )
    return MetricFamily(f"{point.name}/", metrics)
