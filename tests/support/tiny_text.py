"""Tiny text models with random weights. No pytest here: `bench.gpu` builds them too."""

from __future__ import annotations

import copy
from typing import Any

import torch

from calibrl_core.config import Precision
from calibrl_core.models.policy import Policy


def tiny_text_policy(
    base: Any, config_class: type[Any], precision: Precision = "auto", device: str = "cpu", **changed: Any
) -> Policy:
    """Return a tiny text model of a config class of transformers, with a tokenizer without chat template and padding
    token.

    base: tokenizer to copy; changed: fields of the config that differ from the usual sizes of a tiny Llama.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = copy.deepcopy(base)
    tokenizer.pad_token = None
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        **changed,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_class(**settings))
    return Policy(model, tokenizer, torch.device(device), precision)
