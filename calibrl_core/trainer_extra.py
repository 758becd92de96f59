"""Imported first by the trainer's commands: names the extra `trainer` in one line if it is not installed."""

import sys
from importlib.util import find_spec

NEEDED = ("accelerate", "datasets", "math_verify", "numpy", "peft", "safetensors", "sklearn", "torch", "transformers")

if _missing := [module for module in NEEDED if find_spec(module) is None]:
    _message = f"the trainer needs {', '.join(_missing)}: pip install 'calibrl[trainer]'"
    _command = getattr(sys.modules["__main__"], "__spec__", None)
    if _command is None or not _command.name.startswith(f"{__package__}."):
        raise ImportError(_message)
    sys.stderr.write(f"{_command.name}: {_message}\n")
    sys.exit(2)
