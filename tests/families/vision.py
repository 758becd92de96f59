"""Tiny image-text models of transformers: real configuration classes, and the processor files that models have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2, "bos_token_id": None}
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 56, "patch_size": 14, "initializer_range": 0.2}  # 16 patches
PATCHES: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 4,
    "out_hidden_size": 32,
}
PATCHES |= {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "initializer_range": 0.2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
SQUARE = {"height": 56, "width": 56}
PIXELS = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
QWEN_IMAGES = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "size": PIXELS}
QWEN_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
SIGLIP = {"model_type": "siglip_vision_model"}
CLIP = {"model_type": "clip_vision_model"}
GRID = [[56, 56], [56, 112], [112, 56]]  # sizes of a split image


@dataclass(frozen=True)
class Family:
    """A kind of model: its config, and the content of its processor's files."""

    config: str  # class of the config
    parts: Mapping[str, Any]  # arguments of the config
    ids: Mapping[str, str | list[str]]  # arguments of the config that are ids of tokens
    processor: str  # class of the processor
    image: Mapping[str, Any]  # preprocessor_config.json
    mark: str | None = "<image>"  # text of an image in the chat template; None: no chat template
    options: Mapping[str, Any] = field(default_factory=dict)  # processor_config.json
    named: Mapping[str, str] = field(default_factory=dict)  # attributes of the tokenizer that are tokens
    needs: str | None = None  # package without which the processor cannot be imported
    packs: bool = True  # completions can share a copy of their prompt


def text(kind: str, **changed: Any) -> dict[str, Any]:
    """Return the config of a tiny language model."""
    return {**TEXT, "model_type": kind, **changed}


def qwen(config: str, kind: str, patches: Mapping[str, Any], processor: str, **changed: Any) -> Family:
    """Return a family of Qwen: positions of three axes, images of any size."""
    return Family(
        config=config,
        parts={"text_config": text(kind, rope_parameters=ROPE, **changed), "vision_config": {**PATCHES, **patches}},
        ids={
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        },
        processor=processor,
        image={**QWEN_IMAGES, "image_processor_type": "Qwen2VLImageProcessor"},
        mark=QWEN_MARK,
        packs="layer_types" not in changed,
    )


def glm(config: str, processor: str, **changed: Any) -> Family:
    """Return a family of GLM: as Qwen, with other tokens."""
    tokens = {f"{kind}_start_token_id": f"<|begin_of_{kind}|>" for kind in ("image", "video")}
    tokens |= {f"{kind}_end_token_id": f"<|end_of_{kind}|>" for kind in ("image", "video")}
    return Family(
        config=config,
        parts={
            "text_config": text("glm4v_text", rope_parameters=ROPE, **changed),
            "vision_config": {**PATCHES, "image_size": 56},
        },
        ids={"image_token_id": "<|image|>", "video_token_id": "<|video|>", **tokens},
        processor=f"{processor}Processor",
        image={**QWEN_IMAGES, "image_processor_type": f"{processor}ImageProcessor"},
        mark="<|begin_of_image|><|image|><|end_of_image|>",
    )


def llava(config: str, vision: Mapping[str, Any], processor: str, image: str, **changed: Any) -> Family:
    """Return a family of LLaVA: one square picture, 16 tokens."""
    return Family(
        config=config,
        parts={"text_config": text("llama"), "vision_config": {**VISION, **vision}, **changed.pop("parts", {})},
        ids={"image_token_index": "<image>"},
        processor=processor,
        image={
            "image_processor_type": image,
            "size": {"shortest_edge": 56},
            "crop_size": SQUARE,
            **changed.pop("more", {}),
        },
        options={"patch_size": 14, "vision_feature_select_strategy": "default", **changed.pop("options", {})},
        **changed,
    )


def idefics(config: str, processor: str, image: str, **changed: Any) -> Family:
    """Return a family of Idefics3: an image is split into parts of 56 pixels, 4 tokens each."""
    side = {"longest_edge": 112}
    return Family(
        config=config,
        parts={"text_config": text("llama"), "vision_config": VISION, "scale_factor": 2, "tie_word_embeddings": False},
        ids={"image_token_id": "<image>"},
        processor=processor,
        image={"image_processor_type": image, "size": side, "max_image_size": {"longest_edge": 56}},
        options={"image_seq_len": 4},
        **changed,
    )


def paligemma(text_config: Mapping[str, Any]) -> Family:
    """Return a family of PaliGemma."""
    return Family(
        config="PaliGemmaConfig",
        parts={
            "text_config": text_config,
            "vision_config": {**VISION, **SIGLIP},
            "projection_dim": 32,
            "hidden_size": 32,
        },
        ids={"image_token_index": "<image>"},
        processor="PaliGemmaProcessor",
        mark=None,
        image={"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "image_seq_length": 16},
        packs=False,
    )


def gemma4(**changed: Any) -> Family:
    """Return a family of Gemma 4."""
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6, "global_head_dim": 8}
    small = {"vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8}
    tower = {**VISION, "num_key_value_heads": 4, "head_dim": 8, "pooling_kernel_size": 2, "position_embedding_size": 64}
    return Family(
        config="Gemma4Config",
        parts={
            "text_config": text("gemma4_text", **layers, **small, **changed),
            "vision_config": {**tower, "model_type": "gemma4_vision"},
            "audio_config": None,
        },
        ids={
            "image_token_id": "<image_soft_token>",
            "boi_token_id": "<start_of_image>",
            "eoi_token_id": "<end_of_image>",
            "video_token_id": "<|video|>",
        },
        processor="Gemma4Processor",
        image={
            "image_processor_type": "Gemma4ImageProcessor",
            "patch_size": 14,
            "max_soft_tokens": 70,
            "pooling_kernel_size": 2,
        },
        mark="<image_soft_token>",
        options={"feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}},
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "audio_token": "<audio>",
            "boa_token": "<start_of_audio>",
            "eoa_token": "<end_of_audio>",
        },
        packs=False,
    )


def mistral(config: str, vision: str, options: Mapping[str, Any], **parts: Any) -> Family:
    """Return a family with Pixtral's images: of any size, a break after each row of patches."""
    tower = {**VISION, "head_dim": 8, "model_type": vision, "image_size": 112}
    return Family(
        config=config,
        parts={"text_config": text("mistral", sliding_window=None), "vision_config": tower, **parts},
        ids={"image_token_index": "[IMG]"},
        processor="PixtralProcessor",
        image={"image_processor_type": "PixtralImageProcessor", "patch_size": 14, "size": {"longest_edge": 112}},
        mark="[IMG]",
        options={"patch_size": 14, **options},
        needs="torchvision",
    )


GEMMA = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, Family] = {
    "Qwen2-VL": qwen(
        "Qwen2VLConfig", "qwen2_vl_text", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}, "Qwen2VLProcessor"
    ),
    "Qwen2.5-VL": qwen(
        "Qwen2_5_VLConfig",
        "qwen2_5_vl_text",
        {"fullatt_block_indexes": [1], "window_size": 56},
        "Qwen2_5_VLProcessor",
    ),
    "Qwen3-VL": qwen(
        "Qwen3VLConfig",
        "qwen3_vl_text",
        {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        "Qwen3VLProcessor",
    ),
    "Qwen3-VL-MoE": qwen(
        "Qwen3VLMoeConfig",
        "qwen3_vl_moe_text",
        {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        "Qwen3VLProcessor",
        **EXPERTS,
    ),
    "Qwen3.5": qwen(
        "Qwen3_5Config",
        "qwen3_5_text",
        {"num_position_embeddings": 64},
        "Qwen3VLProcessor",
        layer_types=["linear_attention", "full_attention"],
        **LINEAR,
    ),
    "GLM-4.1V": glm("Glm4vConfig", "Glm4v"),
    "GLM-4.6V": glm("Glm46VConfig", "Glm46V"),
    "InternVL3": Family(
        config="InternVLConfig",
        parts={
            "text_config": text("qwen2"),
            "vision_config": {**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
            "image_seq_length": 4,
        },
        ids={"image_token_id": "<IMG_CONTEXT>"},
        processor="InternVLProcessor",
        image={
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": SQUARE,
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": 3,
        },
        mark="<IMG_CONTEXT>",
        options={"image_seq_length": 4},
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "LLaVA": llava(
        "LlavaConfig", CLIP, "LlavaProcessor", "CLIPImageProcessor", options={"num_additional_image_tokens": 1}
    ),
    "LLaVA-NeXT": llava(
        "LlavaNextConfig",
        CLIP,
        "LlavaNextProcessor",
        "LlavaNextImageProcessor",
        parts={"image_grid_pinpoints": GRID},
        more={"image_grid_pinpoints": GRID},
        options={"num_additional_image_tokens": 1},
    ),
    "LLaVA-OneVision": llava(
        "LlavaOnevisionConfig",
        SIGLIP,
        "LlavaOnevisionProcessor",
        "LlavaOnevisionImageProcessor",
        parts={"image_grid_pinpoints": GRID, "vision_feature_select_strategy": "full", "vision_feature_layer": -1},
        more={"image_grid_pinpoints": GRID, "size": SQUARE},
        options={"vision_feature_select_strategy": "full", "num_image_tokens": 16},
    ),
    "VipLLaVA": llava(
        "VipLlavaConfig",
        CLIP,
        "LlavaProcessor",
        "CLIPImageProcessor",
        parts={"vision_feature_layers": [-2, -1]},
        options={"num_additional_image_tokens": 1},
    ),
    "Idefics2": Family(
        config="Idefics2Config",
        parts={
            "text_config": text("mistral", sliding_window=None),
            "vision_config": VISION,
            "perceiver_config": {
                "hidden_size": 32,
                "resampler_n_latents": 4,
                "resampler_depth": 1,
                "resampler_n_heads": 4,
                "resampler_head_dim": 8,
                "num_key_value_heads": 2,
            },
        },
        ids={"image_token_id": "<image>"},
        processor="Idefics2Processor",
        image={
            "image_processor_type": "Idefics2ImageProcessor",
            "size": {"shortest_edge": 28, "longest_edge": 56},
            "do_image_splitting": False,
        },
        options={"image_seq_len": 4},
    ),
    "Idefics3": idefics("Idefics3Config", "Idefics3Processor", "Idefics3ImageProcessor"),
    "SmolVLM": idefics("SmolVLMConfig", "SmolVLMProcessor", "SmolVLMImageProcessor", needs="num2words"),
    "Gemma 3": Family(
        config="Gemma3Config",
        parts={
            "text_config": text("gemma3_text", **GEMMA),
            "vision_config": {**VISION, **SIGLIP},
            "mm_tokens_per_image": 4,
        },
        ids={
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        processor="Gemma3Processor",
        image={"image_processor_type": "Gemma3ImageProcessor", "size": SQUARE, "do_pan_and_scan": False},
        mark="<start_of_image>",
        options={"image_seq_length": 4},
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        packs=False,
    ),
    "Gemma 4": gemma4(),
    "Gemma 4, images seen both ways": gemma4(use_bidirectional_attention="vision"),
    "PaliGemma": paligemma(text("gemma")),
    "PaliGemma 2": paligemma(text("gemma2", query_pre_attn_scalar=8, **GEMMA)),
    "Mistral 3": mistral("Mistral3Config", "pixtral", {"spatial_merge_size": 2}, spatial_merge_size=2),
    "Pixtral": mistral("LlavaConfig", "pixtral", {}, vision_feature_layer=-1, vision_feature_select_strategy="full"),
}
