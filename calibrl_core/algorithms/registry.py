"""The algorithms that a job can name: those of this folder, and those of other installed packages.

To add one here: a file, and its class in the lists of `__init__.py` and in `BUILT_IN`. To add one from another package:
an entry point of the group `calibrl.algorithms`, whose name is the algorithm's `type` and whose value is its class
(docs/how-to/extend.md).
"""

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from calibrl_core.algorithms import CHORD, CISPO, DAPO, GRPO, GSPO, LUFFY, SAPO, SFT, CalibRL, DrGRPO, RLPlus
from calibrl_core.algorithms.base import AlgorithmSettings, PolicyGradientSettings, SupervisedSettings
from calibrl_core.plugins import ExtensionError, load

GROUP = "calibrl.algorithms"
BUILT_IN: tuple[type[AlgorithmSettings], ...] = (
    CalibRL,
    GRPO,
    DrGRPO,
    DAPO,
    GSPO,
    CISPO,
    SAPO,
    LUFFY,
    RLPlus,
    CHORD,
    SFT,
)


def _accept(point: EntryPoint) -> type[AlgorithmSettings]:
    algorithm = point.load()
    if not (isinstance(algorithm, type) and issubclass(algorithm, PolicyGradientSettings | SupervisedSettings)):
        raise ExtensionError(f"{point.value} must be a subclass of PolicyGradientSettings or SupervisedSettings")
    if algorithm.model_fields["type"].default != point.name:
        raise ExtensionError(f"its class must say type: Literal[{point.name!r}] = {point.name!r}")
    if point.name in {kind.model_fields["type"].default for kind in BUILT_IN}:
        raise ExtensionError("an algorithm of CalibRL has this name; choose another one")
    algorithm.model_json_schema()  # raises if a form or the API could not describe its settings
    return algorithm


ALGORITHMS: dict[str, type[AlgorithmSettings]] = {  # by `type`
    **{kind.model_fields["type"].default: kind for kind in BUILT_IN},
    **load(GROUP, _accept, light=True),
}

if TYPE_CHECKING:
    Algorithm = AlgorithmSettings
else:
    Algorithm = Annotated[Union[tuple(ALGORITHMS.values())], Field(discriminator="type")]  # noqa: UP007
