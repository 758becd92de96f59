"""Processors of image-text models: without torchvision, and kinds of models that need more than their pixels."""

import dataclasses
import json
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from calibrl_core.config import PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.models.processors import packages_named
from calibrl_core.rollout.self_check import check_model
from tests.families import more_vision, vision
from tests.families.build import write_vision
from tests.support import pictures

FAMILIES = vision.FAMILIES | more_vision.FAMILIES
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of PaliGemma's
without_torchvision = pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")


@pytest.fixture(scope="module")
def written(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Write a model of a family once; return its source."""
    sources = {}

    def write(name: str) -> PathModel:
        if name not in sources:
            folder = tmp_path_factory.mktemp("model")
            write_vision(folder, policy.tokenizer, FAMILIES[name])
            sources[name] = PathModel(path=str(folder))
        return sources[name]

    return write


@pytest.fixture(scope="module")
def mixed() -> list[Example]:
    """Prompts without an image, with one, and with two of different sizes."""
    small, large = pictures.png("red", 56), pictures.png("blue", 84)
    return [
        Example(id="none", question="What is 3 + 4?", answer="7"),
        Example(id="one", question="<image>What?", answer="7", images=(small,)),
        Example(id="two", question="Is <image> below <image>?", answer="7", images=(large, small)),
    ]


@without_torchvision
def test_a_processor_with_a_part_for_videos_loads_without_torchvision(written: Any, mixed: list[Example]) -> None:
    policy = load_policy(written("Qwen2.5-VL"))
    assert type(policy.processor).__name__ == "Qwen2_5_VLProcessor"
    images = policy.encode(mixed).images
    # 56 x 56, 84 x 84, 56 x 56 pixels; patches of 14 x 14 pixels, of which 4 are a token
    assert images["image_grid_thw"].tolist() == [[1, 4, 4], [1, 6, 6], [1, 4, 4]]
    assert images["pixel_values"].shape == (16 + 36 + 16, 3 * 2 * 14 * 14)
    counts = [policy.prompt_lengths([one])[0] for one in mixed]
    mark = policy.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert policy.encode(mixed).input_ids.eq(mark).sum(-1).tolist() == [0, 4, 13]
    assert counts[1] < counts[2]
    check_model(policy, mixed)
    encoder = pickle.loads(pickle.dumps(PromptEncoder(policy.processor, None)))
    assert encoder.processed(mixed[2])["pixel_values"].equal(policy.encode(mixed[2:]).images["pixel_values"])


@without_torchvision
def test_a_saved_processor_keeps_the_settings_of_its_part_for_videos(written: Any, tmp_path: Path) -> None:
    source = written("Qwen2.5-VL")
    settings = {"video_processor_type": "Qwen2VLVideoProcessor", "fps": 3}
    (Path(source.path) / "video_preprocessor_config.json").write_text(json.dumps(settings))
    policy = load_policy(source)
    policy.save(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == "Qwen2_5_VLProcessor"
    assert saved["video_processor"] == settings
    again = load_policy(PathModel(path=str(tmp_path))).processor
    assert again.video_processor.to_dict() == settings
    assert again.image_processor.to_dict() == policy.processor.image_processor.to_dict()


@without_torchvision
@pytest.mark.parametrize("name", ["Mistral 3", "LFM2-VL"])
def test_a_processor_that_needs_torchvision_names_it(written: Any, name: str) -> None:
    words = r"processor of .* needs the package torchvision, .* pip install 'calibrl\[vision\]'$"
    with pytest.raises(ModelError, match=words):
        load_policy(written(name))


@pytest.mark.skipif(find_spec("num2words") is not None, reason="num2words is installed")
def test_a_processor_that_needs_num2words_names_it(written: Any) -> None:
    with pytest.raises(ModelError, match="needs the package num2words, which is not installed"):
        load_policy(written("SmolVLM"))


def test_a_tokenizer_that_cannot_be_imported_names_what_it_needs() -> None:
    with (
        pytest.raises(ModelError, match=r"processor of m cannot be imported \(it requires tiktoken\); install"),
        packages_named("m"),
    ):
        raise ImportError("it requires\n tiktoken")


def test_another_error_of_a_processor_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="a damaged file"), packages_named("m"):
        raise ValueError("a damaged file")


@pytest.mark.parametrize("name", ["PaliGemma", "Gemma 4, images seen both ways"])
def test_attention_in_both_directions_is_that_of_transformers(written: Any, name: str, mixed: list[Example]) -> None:
    check_model(load_policy(written(name)), mixed)


def test_a_completion_of_paligemma_does_not_see_later_tokens(written: Any, mixed: list[Example]) -> None:
    policy = load_policy(written("PaliGemma"))
    tokens = torch.tensor([[70, 71, 72, 73], [70, 71, 80, 81]])
    with torch.no_grad():
        found = policy.logprobs(mixed[1:2], [0, 0], tokens, torch.ones_like(tokens, dtype=torch.bool), 1.0)
    torch.testing.assert_close(found[0, :2], found[1, :2], rtol=0, atol=1e-6)
    other = dataclasses.replace(mixed[1], question="<image>Which?")
    with torch.no_grad():
        changed = policy.logprobs([other], [0], tokens[:1], torch.ones(1, 4, dtype=torch.bool), 1.0)
    assert (changed - found[:1]).abs().max() > 1e-4


def test_a_prompt_of_paligemma_has_its_images_first(written: Any, mixed: list[Example]) -> None:
    """The format that PaliGemma was trained with: images, first token, text, end of line."""
    policy = load_policy(written("PaliGemma"))
    texts = [policy.tokenizer.decode(policy.encode([one]).input_ids[0]) for one in mixed[:2]]
    assert texts[0].startswith("<bos>What is 3 + 4?") and texts[0].endswith("\n")
    assert texts[1].startswith("<image>" * 16 + "<bos>What?") and texts[1].endswith("\n")


def test_tokens_that_a_vision_tower_embeds_are_never_sampled(written: Any) -> None:
    """Ovis replaces them by features in the update, but not in a step of decoding."""
    policy = load_policy(written("Ovis2"))
    marks = ["<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    assert policy.banned[policy.tokenizer.convert_tokens_to_ids(marks)].all()
