"""Hook before each request of schemathesis: it replaces some random ids by existing ones.

Loaded by schemathesis's command line through `SCHEMATHESIS_HOOKS`; `FUZZ_KNOWN` names the ids made by `known.fill`.
"""

import json
import os
import random
from typing import Any

import schemathesis

KNOWN: dict[str, dict[str, list[str]]] = json.loads(os.environ["FUZZ_KNOWN"])
SHARE = 0.6
_chance = random.Random(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Replace made-up ids by existing ones, but never in a DELETE: the known content must stay."""
    if case.method.upper() == "DELETE" or _chance.random() > SHARE:
        return
    places = max((path for path in KNOWN if case.operation.path.startswith(path)), key=len, default="")
    for name, values in KNOWN.get(places, {}).items():
        if name in (case.path_parameters or {}):
            case.path_parameters[name] = _chance.choice(values)
        elif name in (case.query or {}):
            case.query[name] = _chance.choice(values)
