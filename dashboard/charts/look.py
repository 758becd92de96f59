"""How a reader wants curves to be drawn."""

from dataclasses import dataclass

from dashboard.charts.series import Smoothing


@dataclass(frozen=True)
class Look:
    """How curves are drawn. `log`: a logarithmic y axis, which leaves out values of 0 and less."""

    smoothing: Smoothing = "mean"
    log: bool = False
    x_title: str = "step"
    legend: bool = True


PLAIN = Look()
