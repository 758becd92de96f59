"""LoRA on mixtures of experts and state-space models: layers that peft takes for something else get no adapter."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from calibrl_core.config import LoraSettings, ModelOptions
from calibrl_core.models import adapters
from calibrl_core.models.errors import ModelError
from tests.families.text import KINDS

EXPECTED = {
    "linear attention and experts": {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkvz", "in_proj_ba", "out_proj"},
    "chunked attention": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "state space": {"in_proj"},
}


def adapted_layers(policy: Any, *targets: str) -> set[str]:
    """Return the names of the layers that get an adapter."""
    model = copy.deepcopy(policy.model)
    adapters.prepare_model(model, ModelOptions(lora=LoraSettings(rank=2, targets=targets)))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name for name in names)
    assert not any(".experts." in name for name in names)
    return {name.rpartition(".lora_")[0].rpartition(".")[2] for name in names}


@pytest.mark.parametrize("kind", EXPECTED)
def test_linear_layers_outside_of_experts_get_an_adapter(kind: str, text_policy: Callable[..., Any]) -> None:
    config, settings, _ = KINDS[kind]
    layers = adapted_layers(text_policy(config, **settings))

    assert layers - {"shared_expert_gate"} == EXPECTED[kind]


@pytest.mark.parametrize(
    ("kind", "target"), [("linear attention and experts", "shared_expert.down_proj"), ("state space", "out_proj")]
)
def test_a_named_layer_that_peft_cannot_adapt_is_refused(
    kind: str, target: str, text_policy: Callable[..., Any]
) -> None:
    config, settings, _ = KINDS[kind]
    policy = text_policy(config, **settings)
    with pytest.raises(ModelError, match=rf"lora.targets: peft cannot adapt {target} in \w+; remove it"):
        adapted_layers(policy, target)
