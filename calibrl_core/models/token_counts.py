"""Tokens of prompts and experts for a model, without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrl_core.data.schema import DataError, Example

if TYPE_CHECKING:
    from calibrl_core.data.prompts import PromptFormat
    from calibrl_core.models.encoding import PromptEncoder


class ModelTokens:
    """Counts tokens with the processor and the chat template of a model."""

    def __init__(self, encoder: PromptEncoder, turn_end: int) -> None:
        self._encoder, self._turn_end = encoder, turn_end

    def prompt(self, example: Example) -> int:
        """Return the number of tokens of a prompt, with its images.

        Raises:
            DataError: the model cannot take the example.
        """
        if fault := self._encoder.fault(example):
            raise DataError(fault)
        return self._encoder.lengths([example])[0]

    def expert(self, expert: str) -> int:
        """Return the number of tokens of an expert, with the end of its turn."""
        text = self._encoder.continued(expert)
        return len(self._encoder.tokenizer(text, add_special_tokens=False).input_ids) + self._turn_end


def model_tokens(path: str, form: PromptFormat | None = None) -> ModelTokens:
    """Return the counter of a model: the folder of a saved model, or the name of a built-in one. `form`: of the
    prompts; None: the default.

    Raises:
        DataError: there is no model that can be read.
    """
    from calibrl_core.models.encoding import PromptEncoder
    from calibrl_core.models.errors import ModelError
    from calibrl_core.models.loading import load_model_processor
    from calibrl_core.models.turn_end import turn_end

    try:
        processor = load_model_processor(path)
    except (ModelError, OSError, ValueError) as error:
        raise DataError(f"--model: {error}") from error
    encoder = PromptEncoder(processor, None, form) if form else PromptEncoder(processor, None)
    return ModelTokens(encoder, len(turn_end(encoder, ())))
