"""Tiny text models of transformers: real configuration classes."""

from typing import Any

from transformers import (
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

SLIDING = {"sliding_window": 6, "num_hidden_layers": 2}
LINEAR = {f"linear_{name}": 8 for name in ("key_head_dim", "value_head_dim")}
LINEAR |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "head_dim": 8}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
# Kind: config class, what it needs, and whether completions may share a copy of their prompt.
KINDS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "llama": (LlamaConfig, {}, True),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}, True),
    "qwen3": (Qwen3Config, {"head_dim": 16}, True),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4}, True),
    "eager": (LlamaConfig, {"attn_implementation": "eager"}, True),
    "head with a bias": (PhiConfig, {}, True),
    "scaled logits": (GraniteConfig, {"logits_scaling": 0.25}, True),
    "scaled logits, other name": (CohereConfig, {"logit_scale": 0.5}, True),
    "sliding window": (MistralConfig, SLIDING, False),
    "sliding window, capped logits": (Gemma2Config, {**SLIDING, "head_dim": 8, "final_logit_softcapping": 2.0}, False),
    "convolutions": (Lfm2Config, {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}, False),
    "linear attention and experts": (
        Qwen3NextConfig,
        {**LINEAR, **EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
        False,
    ),
    "state space beside attention": (FalconH1Config, MAMBA, False),
    "state space": (Mamba2Config, {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "expand": 2}, False),
    "chunked attention": (
        Llama4TextConfig,
        {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64, "attention_chunk_size": 8},
        False,
    ),
}

FEW_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6, "head_dim": 8}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
LATENT |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32}
PER_LAYER = {"vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8, "global_head_dim": 8}
# Family: class of its config, and what it needs. The kinds above that are families, and more.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    **{config.__name__.removesuffix("Config"): (config.__name__, settings) for config, settings, _ in KINDS.values()},
    "Llama": ("LlamaConfig", {}),
    "Mixtral": ("MixtralConfig", FEW_EXPERTS),
    "Ministral": ("MinistralConfig", {**LAYERS}),
    "Gemma": ("GemmaConfig", {"head_dim": 8}),
    "Gemma3Text": ("Gemma3TextConfig", LAYERS),
    "Gemma4Text": ("Gemma4TextConfig", {**LAYERS, **PER_LAYER}),
    "Phi3": ("Phi3Config", {}),
    "Olmo2": ("Olmo2Config", {}),
    "Olmo3": ("Olmo3Config", LAYERS),
    "SmolLM3": ("SmolLM3Config", {}),
    "Glm4": ("Glm4Config", {"head_dim": 8}),
    "Cohere2": ("Cohere2Config", LAYERS),
    "Qwen3Moe": ("Qwen3MoeConfig", {**EXPERTS, "head_dim": 8}),
    "Qwen3_5Text": (
        "Qwen3_5TextConfig",
        {**LINEAR, "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "Ernie4_5": ("Ernie4_5Config", {"head_dim": 8}),
    "GptOss": ("GptOssConfig", {**FEW_EXPERTS, **LAYERS}),
    "DeepseekV3": ("DeepseekV3Config", {**LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 1}),
    "StableLm": ("StableLmConfig", {}),
    "Starcoder2": ("Starcoder2Config", {}),
    "Exaone4": ("Exaone4Config", LAYERS),
    "SeedOss": ("SeedOssConfig", {"head_dim": 8}),
    "GPTNeoX": ("GPTNeoXConfig", {}),
}
WITHOUT_LORA = ("GPT2",)  # its layers are no linear layers of torch
