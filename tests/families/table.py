"""The page docs/reference/families.md, which `make test-families` writes."""

from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tests.families import more_vision, text, vision
from tests.families.run import Result

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "families.md"
VISION = vision.FAMILIES | more_vision.FAMILIES
HEAD = """# Families of models

The trainer takes image-text and causal text models of transformers. `make test-families` writes
this page: it builds a tiny model of each family from its real configuration class, with random
weights and its real processor, and runs it in float32.

- **Without torchvision**: *yes* if the model loads without the [extra](../how-to/install.md)
  `vision`; otherwise the package that its processor needs.
- **Packs**: completions of a prompt share one copy of it in the update. Otherwise the update runs
  one completion per row.
- **Difference**: largest difference (nats per token) of the log-probabilities of sampler and
  update, with rows packed and one by one, from the model's own forward pass in transformers.
  Prompts have no image, one image, and two images of different sizes.
- **Ran**: *whole, LoRA* means two steps of GRPO on prompts with up to two images (KL divergence,
  entropy bonus, two updates per step) with all weights, and with LoRA and gradient checkpointing;
  each checkpoint was loaded and compared again.

Each run repeats the comparison with its own model and data before its first step. A family that is
not listed can run if it passes.

Aya Vision and Command A Vision: their classes in transformers do not apply the `logit_scale` of
their language model, and the trainer computes what these classes compute. vLLM applies it, so these
two can only be sampled by `shared_prefill`.
"""
DATED = "Last run of all families: "
COLUMNS = ("Family", "Model", "Processor", "Without torchvision", "Packs", "Difference", "Ran")


def write(found: Mapping[str, Result]) -> None:
    """Write the page from an environment with torchvision. Families without a result keep their row, if they have one;
    otherwise nothing is written.
    """
    if find_spec("torchvision") is None:
        return
    families = {*VISION, *text.FAMILIES}
    before = PAGE.read_text().splitlines() if PAGE.exists() else []
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")}
    lines |= {name: _line(one) for name, one in found.items()}
    if not families <= lines.keys():
        return
    dated = [_date()] if families <= found.keys() else [line for line in before if line.startswith(DATED)]
    head = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    parts = [HEAD, *(f"{line}\n" for line in dated), "## Image-text models\n", *head, *(lines[name] for name in VISION)]
    parts += ["\n## Text models\n", *head, *(lines[name] for name in text.FAMILIES)]
    PAGE.write_text("\n".join(parts) + "\n")


def _date() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "torchvision"))
    return f"{DATED}{date.today():%-d %B %Y}, {versions}."


def _line(one: Result) -> str:
    cells = (one.family, f"`{one.model}`", one.processor, one.without_torchvision, one.packs, one.difference, one.ran)
    return "| " + " | ".join(cells) + " |"
