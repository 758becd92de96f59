"""Description of the metrics that a client can request, from the registry of metrics."""

from calibrl_core.metrics import FAMILIES

KNOWN_NAMES = (
    f"Families: {'; '.join(family.title for family in FAMILIES)}; and those of installed packages. "
    "`calibrl metrics` lists and explains the metrics, as the reference does."
)
