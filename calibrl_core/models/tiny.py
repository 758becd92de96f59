"""The built-in tiny vision-language model: a stock Idefics3 with random weights, its processor, tokenizer and template.

It is built, saved and loaded like any other model of transformers; the rest of the trainer does not treat it specially.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrl_core.data.builtin.digits import CANVAS, QUESTION
from calibrl_core.data.prompts import INSTRUCTION

if TYPE_CHECKING:
    from transformers import Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast

PATCH = 14  # pixels; CANVAS / PATCH = 4 patches per side
SCALE_FACTOR = 2  # patches per side of one image token: 2 x 2 image tokens
VOCABULARY = 448
INITIALIZER_RANGE = 0.06  # layers this narrow need it: with the usual 0.02 the model learned nothing in 700 steps

IMAGE_MARKS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    QUESTION,
    INSTRUCTION,
    "On the left I see 1, on the right 2: 3.",
    "The digits are added, subtracted, multiplied and compared: the larger, the smaller, their difference or product.",
]


def build_tiny_vlm(seed: int, canvas: int = CANVAS) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Return a new model and processor; the same seed gives the same weights. Does not change torch's global generator.

    `canvas`: pixels per side of its images, a multiple of 28; an image is (canvas / 28) ** 2 tokens.
    """
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = _tokenizer()
    side = {"longest_edge": canvas}
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(do_image_splitting=False, size=side, max_image_size=side),
        tokenizer,
        image_seq_len=(canvas // PATCH // SCALE_FACTOR) ** 2,
        chat_template=CHAT_TEMPLATE,
    )
    config = Idefics3Config(
        image_token_id=tokenizer.get_vocab()["<image>"],
        scale_factor=SCALE_FACTOR,
        tie_word_embeddings=False,
        text_config=_text_config(tokenizer),
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": canvas,
            "patch_size": PATCH,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config)
    return model, processor


def _text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    return {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": len(tokenizer),
        "initializer_range": INITIALIZER_RANGE,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer (any text has tokens): digits separate, one token per answer tag
    and chat role.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", *IMAGE_MARKS]
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens(TAGS)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
