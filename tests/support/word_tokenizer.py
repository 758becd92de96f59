"""A tokenizer of words, in the layout of tokenizer.json."""

import json
from pathlib import Path
from typing import Any


def save_word_tokenizer(folder: Path, pattern: str = r"\s+", **changes: Any) -> Path:
    """Write the folder of a model whose tokens are the words between spaces, and return it."""
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": False},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2}, "unk_token": "[UNK]"},
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps(content | changes))
    return folder
