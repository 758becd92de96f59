"""Image-text models with a decoder of this project: each row gets what transformers gives to the row alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from calibrl_core.config import PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.image_decoders import Llama4Decoder, MllamaDecoder
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.self_check import check_model
from calibrl_core.rollout.server_layout import vllm_arguments
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from tests.families.build import write_vision
from tests.families.more_vision import FAMILIES
from tests.support import pictures

RED, BLUE = pictures.png("red", 56), pictures.png("blue", 112)
TOKENS = 4


@pytest.fixture(scope="module")
def loaded(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that loads the tiny model of a family."""
    found: dict[str, Policy] = {}

    def load(name: str) -> Policy:
        if name not in found:
            folder = tmp_path_factory.mktemp("model")
            write_vision(folder, policy.tokenizer, FAMILIES[name])
            found[name] = load_policy(PathModel(path=str(folder)))
        return found[name]

    return load


def example(text: str, *images: bytes) -> Example:
    return Example(id=text, question=text, answer="7", images=images)


MIXED = [
    example("What is 3 + 4?"),
    example("Is <image> below <image>?", RED, BLUE),
    example("So <image> it is.", BLUE),
    example("<image><image> are here, <image> is there.", BLUE, RED, RED),
]


def logprobs(policy: Policy, examples: list[Example], owners: list[int]) -> Tensor:
    tokens = torch.arange(70, 70 + len(owners) * TOKENS).view(-1, TOKENS)
    return policy.logprobs(examples, owners, tokens, torch.ones_like(tokens, dtype=torch.bool), 1.0)


@pytest.mark.parametrize("name", ["Mllama", "Aya Vision"])
def test_log_probabilities_are_those_of_transformers(loaded: Any, name: str) -> None:
    for one in MIXED:
        assert check_model(loaded(name), [one]) < 1e-4


@torch.no_grad()
def test_rows_with_other_images_do_not_change_a_row(loaded: Any) -> None:
    policy, owners = loaded("Mllama"), [0, 1, 1, 2, 3]
    together = logprobs(policy, MIXED, owners)
    for row, owner in enumerate(owners):
        tokens = torch.arange(70 + row * TOKENS, 70 + (row + 1) * TOKENS)[None]
        alone = policy.logprobs([MIXED[owner]], [0], tokens, torch.ones_like(tokens, dtype=torch.bool), 1.0)
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-5)


def test_a_batch_of_prompts_is_sampled_as_it_is_updated(loaded: Any) -> None:
    policy, owners = loaded("Mllama"), [0, 0, 1, 1, 2, 2, 3, 3]
    request = SamplingRequest(group_size=2, temperature=1.0, max_tokens=6, seed=[0])
    found = SharedPrefillEngine(policy).generate(MIXED, request)
    with torch.no_grad():
        expected = policy.logprobs(MIXED, owners, found.tokens, found.mask, 1.0)
    torch.testing.assert_close(found.logprobs, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hidden_states_of_llama_4_are_those_of_its_logits(policy: Policy, tmp_path: Path) -> None:
    write_vision(tmp_path, policy.tokenizer, FAMILIES["Llama 4"])  # its processor needs torchvision
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    tokens = torch.tensor([[70, *[model.config.image_token_id] * 4, 71, 72]])  # a tile of 4 x 4 patches
    pixels = [torch.rand((1, 3, 56, 56), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    found, other = (Llama4Decoder(model)(tokens, pixel_values=one).last_hidden_state for one in pixels)
    expected = model(input_ids=tokens, pixel_values=pixels[0]).logits
    torch.testing.assert_close(model.get_output_embeddings()(found), expected, rtol=0, atol=1e-5)
    assert (found - other)[0, -1].abs().max() > 1e-3


@torch.no_grad()
def test_cross_attention_changes_no_row_without_images(loaded: Any) -> None:
    model, tokens = loaded("Mllama").model.model, torch.arange(70, 78).view(2, 4)
    run, hook = [], model.language_model.layers[1].register_forward_hook(lambda *_: run.append(1))
    found = MllamaDecoder(model)(tokens, use_cache=True)
    assert len(run) == 1
    expected = model(tokens)  # skips the layer
    hook.remove()
    assert len(run) == 1
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-6)


def test_vllm_is_refused_if_it_scales_other_logits(loaded: Any) -> None:
    policy = loaded("Aya Vision")
    assert policy.head.scale == 1 and policy.model.config.text_config.logit_scale == 0.0625
    with pytest.raises(ModelError, match=r"vLLM multiplies the logits of aya_vision by 0\.0625, and transformers does"):
        vllm_arguments(policy, 1024)
    assert vllm_arguments(loaded("Mllama"), 1024)["max_num_seqs"] == 32
