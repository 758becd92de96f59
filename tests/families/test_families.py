"""Tiny models of all families with their real processors, through sampling, training, saving and loading.

`make test-families` runs them with torchvision, and writes docs/reference/families.md. Without torchvision, the
families that need it are refused.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from calibrl_core.config import PathModel
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from tests.families import table, text
from tests.families.build import write_vision
from tests.families.run import Result, examples, run_family, run_lora, write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of PaliGemma's processor
]


@pytest.mark.parametrize("name", table.VISION)
def test_an_image_text_family(
    name: str, policy: Policy, rows_with_images: Path, tmp_path: Path, results: dict[str, Result]
) -> None:
    family, folder = table.VISION[name], tmp_path / "model"
    write_vision(folder, policy.tokenizer, family)
    result = {
        "family": name,
        "model": family.config.removesuffix("Config"),
        "processor": f"`{family.processor}`",
        "without_torchvision": f"needs {family.needs}" if family.needs else "yes",
    }
    if family.needs and find_spec(family.needs) is None:
        with pytest.raises(ModelError, match=f"needs the package {family.needs}"):
            load_policy(PathModel(path=str(folder)))
        results[name] = Result(**result, ran="refused at load")
        return
    asked = examples(write_images(tmp_path))
    loaded, difference = run_family(folder, rows_with_images, asked, tmp_path)
    run_lora(folder, rows_with_images, asked, tmp_path, loaded)
    assert type(loaded.processor).__name__ == family.processor
    assert loaded.shares_prompts == family.packs
    packs = "yes" if family.packs else "no"
    results[name] = Result(**result, packs=packs, difference=f"{difference:.0e}", ran="whole, LoRA")


@pytest.mark.parametrize("name", text.FAMILIES)
def test_a_text_family(
    name: str, text_policy: Callable[..., Policy], rows_of_text: Path, tmp_path: Path, results: dict[str, Result]
) -> None:
    import transformers

    config, settings = text.FAMILIES[name]
    folder, asked = tmp_path / "model", examples([])
    text_policy(getattr(transformers, config), **settings).save(folder)
    loaded, difference = run_family(folder, rows_of_text, asked, tmp_path)
    if name in text.WITHOUT_LORA:
        with pytest.raises(ModelError, match="has no linear layers"):
            run_lora(folder, rows_of_text, asked, tmp_path, loaded)
    else:
        run_lora(folder, rows_of_text, asked, tmp_path, loaded)
    model, packs = config.removesuffix("Config"), "yes" if loaded.shares_prompts else "no"
    ran = "whole" if name in text.WITHOUT_LORA else "whole, LoRA"
    results[name] = Result(name, model, packs=packs, difference=f"{difference:.0e}", ran=ran)
