"""More tiny image-text models: see `tests.families.vision`."""

from tests.families.vision import SIGLIP, SQUARE, VISION, Family, text

LFM = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
FAMILIES: dict[str, Family] = {
    "Aya Vision": Family(
        config="AyaVisionConfig",
        parts={
            "text_config": text("cohere2", sliding_window=6, layer_types=["sliding_attention", "full_attention"]),
            "vision_config": {**VISION, **SIGLIP},
            "downsample_factor": 2,
            "vision_feature_layer": -1,
            "adapter_layer_norm_eps": 1e-6,
        },
        ids={"image_token_index": "<|IMG_PATCH|>"},
        processor="AyaVisionProcessor",
        image={
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": SQUARE,
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": 2,
        },
        options={"patch_size": 14, "img_size": 56, "downsample_factor": 2},
        packs=False,
    ),
    "Ovis2": Family(
        config="Ovis2Config",
        parts={
            "text_config": text("qwen2"),
            "vision_config": {**VISION, "vocab_size": 24, "hidden_stride": 2, "num_visual_indicator_tokens": 5},
            "hidden_size": 32,
            "vocab_size": 512,
        },
        ids={
            "image_token_id": "<IMG_ATOM>",
            "visual_indicator_token_ids": ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"],
        },
        processor="Ovis2Processor",
        image={"image_processor_type": "Ovis2ImageProcessor", "size": SQUARE, "max_patches": 2},
        options={"image_seq_length": 4},
    ),
    "LFM2-VL": Family(
        config="Lfm2VlConfig",
        parts={
            "text_config": text("lfm2", **LFM),
            "vision_config": {**VISION, "model_type": "siglip2_vision_model", "num_patches": 16},
            "downsample_factor": 2,
            "projector_hidden_size": 32,
        },
        ids={"image_token_id": "<image>"},
        processor="Lfm2VlProcessor",
        image={
            "image_processor_type": "Lfm2VlImageProcessor",
            "encoder_patch_size": 14,
            "downsample_factor": 2,
            "tile_size": 56,
            "min_image_tokens": 4,
            "max_image_tokens": 8,
            "min_tiles": 2,
            "max_tiles": 4,
        },
        needs="torchvision",
        packs=False,
    ),
    "DeepSeek-VL": Family(
        config="DeepseekVLConfig",
        parts={"text_config": text("llama"), "vision_config": {**VISION, **SIGLIP}},
        ids={"image_token_id": "<image_placeholder>"},
        processor="DeepseekVLProcessor",
        image={"image_processor_type": "DeepseekVLImageProcessor", "size": SQUARE, "min_size": 14},
        mark="<image_placeholder>",
        options={"num_image_tokens": 16},
        named={"image_token": "<image_placeholder>"},
    ),
    "Command A Vision": Family(
        config="Cohere2VisionConfig",
        parts={
            "text_config": text("cohere2", sliding_window=6, layer_types=["sliding_attention", "full_attention"]),
            "vision_config": {**VISION, **SIGLIP},
            "downsample_factor": 2,
            "alignment_intermediate_size": 64,
        },
        ids={"image_token_id": "<image>"},
        processor="Cohere2VisionProcessor",
        image={
            "image_processor_type": "Cohere2VisionImageProcessor",
            "size": SQUARE,
            "patch_size": 2,  # of its processor: the square root of the tokens per tile
            "downsample_factor": 2,
            "max_patches": 2,
        },
        named={
            "image_token": "<image>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        needs="torchvision",
        packs=False,
    ),
    "Llama 4": Family(
        config="Llama4Config",
        parts={
            "text_config": text(
                "llama4_text", num_local_experts=2, intermediate_size_mlp=64, attention_chunk_size=8, pad_token_id=0
            ),
            "vision_config": {
                **VISION,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "intermediate_size": 128,
            },
        },
        ids={
            "image_token_index": "<|patch|>",
            "boi_token_index": "<|image_start|>",
            "eoi_token_index": "<|image_end|>",
        },
        processor="Llama4Processor",
        image={"image_processor_type": "Llama4ImageProcessor", "size": SQUARE, "max_patches": 2},
        mark="<|image|>",
        options={"patch_size": 14},
        needs="torchvision",
        packs=False,
    ),
    "Mllama": Family(
        config="MllamaConfig",
        parts={
            "text_config": text(
                "mllama_text_model",
                cross_attention_layers=[1],
                bos_token_id=0,
                rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            ),
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 4,
                "image_size": 56,
                "patch_size": 14,
                "vision_output_dim": 64,
                "intermediate_layers_indices": [0],
                "max_num_tiles": 2,
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            },
        },
        ids={"image_token_index": "<|image|>"},
        processor="MllamaProcessor",
        image={"image_processor_type": "MllamaImageProcessor", "size": SQUARE, "max_image_tiles": 2},
        mark="<|image|>",
    ),
}
