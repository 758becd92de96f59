"""Description of the metrics that a client can request, from the registry of metrics, and lists of them."""

from urllib.parse import unquote

from calibrl_core.metrics import FAMILIES

KNOWN_NAMES = (
    f"Families: {'; '.join(family.title for family in FAMILIES)}; and those of installed packages. "
    "`calibrl metrics` lists and explains the metrics, as the reference does."
)
ESCAPES = "Write `%2C` for a comma in a name, `%25` for a percent sign."


def listed(text: str) -> list[str]:
    """Return the items of a list separated by commas, each once, with their escapes."""
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def unescaped(name: str) -> str:
    """Return a listed name with its escapes resolved."""
    return unquote(name, errors="replace")
