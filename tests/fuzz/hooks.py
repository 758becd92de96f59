"""Hook before each request of schemathesis: it replaces some random ids by existing ones, and keeps
what all cases need.

Loaded by schemathesis's command line through `SCHEMATHESIS_HOOKS`; `FUZZ_KNOWN` names the ids made by `known.fill`.
"""

import json
import os
import random
from typing import Any
from uuid import UUID

import schemathesis

KNOWN: dict[str, dict[str, list[str]]] = json.loads(os.environ["FUZZ_KNOWN"])
KEPT = {"admin", "default"}.union(*(names for places in KNOWN.values() for names in places.values()))
SHARE = 0.6
_chance = random.Random(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Replace made-up ids by existing ones, but never where the request removes something."""
    method, path = case.method.upper(), case.operation.path
    if method == "DELETE" or (method, path) == ("PATCH", "/v1/users/{name}"):
        _keep(case.path_parameters or {})
    elif _chance.random() <= SHARE:
        places = max((place for place in KNOWN if path.startswith(place)), key=len, default="")
        for name, values in KNOWN.get(places, {}).items():
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = _chance.choice(values)
            elif name in (case.query or {}):
                case.query[name] = _chance.choice(values)


def _keep(parameters: dict[str, Any]) -> None:
    """Replace what names something that exists: schemathesis takes values also from answers, such as the id of the key
    that it sends.
    """
    for name, value in parameters.items():
        if _is_id(value):
            parameters[name] = str(UUID(int=_chance.getrandbits(128), version=4))
        elif str(value) in KEPT:
            parameters[name] = "gone"


def _is_id(value: Any) -> bool:
    try:
        UUID(str(value))
    except ValueError:
        return False
    return True
