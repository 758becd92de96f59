"""What schemathesis does before each request: it never guesses an id that exists, so every other id becomes one.

Loaded by its command line, where `SCHEMATHESIS_HOOKS` names this module; `FUZZ_KNOWN` is what `known.fill` has made.
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
    """Put ids that exist in the place of made-up ones; what is there stays there, so nothing of it is deleted."""
    if case.method.upper() == "DELETE" or _chance.random() > SHARE:
        return
    places = max((path for path in KNOWN if case.operation.path.startswith(path)), key=len, default="")
    for name, values in KNOWN.get(places, {}).items():
        if name in (case.path_parameters or {}):
            case.path_parameters[name] = _chance.choice(values)
        elif name in (case.query or {}):
            case.query[name] = _chance.choice(values)
