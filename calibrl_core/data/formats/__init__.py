"""The row formats: every module of this folder that has `FORMATS`. To add a format, add a module."""

from importlib import import_module
from pkgutil import iter_modules

from calibrl_core.data.formats.base import RowFormat


def _found() -> tuple[RowFormat, ...]:
    """Return all formats in the order of detection: those that need most columns first within a rank."""
    names = (module.name for module in iter_modules(__path__))
    modules = (import_module(f"{__name__}.{name}") for name in names if name != "base")
    formats: list[RowFormat] = [form for module in modules for form in module.FORMATS]
    return tuple(sorted(formats, key=lambda form: (form.rank, -len(form.needs) - len(form.marks), form.name)))


FORMATS = _found()
NAMES = tuple(sorted({form.name for form in FORMATS}))
