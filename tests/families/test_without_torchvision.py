"""Processors with and without torchvision: the same tokens, sizes and positions, and nearly the same pixels."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoImageProcessor
from transformers.utils import import_utils

from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.policy import Policy
from calibrl_core.models.processors import load_processor
from tests.families import table
from tests.families.build import write_vision
from tests.families.run import examples, write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of PaliGemma's processor
    pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed: make test-families"),
]
# Of pixels, which are about -2 to 2. Pillow rounds the result of each resizing to whole levels of 1/255.
LARGEST, MEAN = 0.05, 0.01


@pytest.mark.parametrize("name", [name for name, one in table.VISION.items() if not one.needs])
def test_tokens_are_the_same_and_pixels_nearly(
    name: str, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vision(tmp_path, policy.tokenizer, table.VISION[name])
    config = AutoConfig.from_pretrained(tmp_path)
    with_torchvision = load_processor(str(tmp_path), config)
    monkeypatch.setattr(import_utils, "is_torchvision_available", lambda: False)
    plain: Any = partial(AutoImageProcessor.from_pretrained, backend="pil")
    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", plain)
    without = load_processor(str(tmp_path), config)
    assert type(without.image_processor).__name__.endswith("Pil")
    assert type(without).__name__ == type(with_torchvision).__name__
    for example in examples(write_images(tmp_path)):
        expected = PromptEncoder(with_torchvision, None).processed(example)
        found = PromptEncoder(without, None).processed(example)
        assert found.keys() == expected.keys()
        for key, one in expected.items():
            assert found[key].shape == one.shape
            difference = (found[key].double() - one.double()).abs()
            if one.is_floating_point():
                print(name, key, float(difference.max()), float(difference.mean()))
                assert difference.max() <= LARGEST and difference.mean() <= MEAN
            else:
                assert not difference.any(), key
