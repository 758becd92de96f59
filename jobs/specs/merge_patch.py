"""JSON merge patch (RFC 7396), with the rules for specs."""

from collections.abc import Mapping
from typing import Any

from calibrl.schemas.spec_paths import SOURCES


def merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return `target` changed by `patch`: mappings are merged, null removes, other values replace.

    A mapping of another `type`, or with another source, replaces too: settings of one algorithm or dataset have no
    meaning for another.
    """
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            base = before if isinstance(before, Mapping) and not _is_another(before, value) else {}
            result[key] = merged(base, value)
        else:
            result[key] = value
    return result


def _is_another(before: Mapping[str, Any], patch: Mapping[str, Any]) -> bool:
    has = [source for source in SOURCES if source in before]
    gets = [source for source in SOURCES if patch.get(source) is not None]
    return ("type" in before and patch.get("type", before["type"]) != before["type"]) or bool(
        has and gets and has != gets
    )
