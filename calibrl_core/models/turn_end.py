"""The tokens that end a turn of the assistant, by the chat template."""

from __future__ import annotations

from collections.abc import Collection

from calibrl_core.models.encoding import PROBE, REFUSALS, PromptEncoder, text_message

_ANSWER = "42 it is"  # its place in the rendered text shows where the end of the turn begins


def turn_end(encoder: PromptEncoder, stop_ids: Collection[int]) -> list[int]:
    """Return the tokens that the chat template writes behind an answer, up to the one that stops; the last one is a
    stop token.

    Without a stop token among them, the first special token stops, although the model's files do not list it. Without
    a special token either, or if the template refuses an assistant's message: the end-of-sequence token alone.
    """
    tokens = _behind_answer(encoder)
    special = {token for token, added in encoder.tokenizer.added_tokens_decoder.items() if added.special}
    for stops in (stop_ids, special):
        for place, token in enumerate(tokens):
            if token in stops:
                return tokens[: place + 1]
    return [encoder.tokenizer.eos_token_id]


def _behind_answer(encoder: PromptEncoder) -> list[int]:
    """Return the tokens behind an answer in a rendered conversation."""
    messages = [text_message("user", PROBE), text_message("assistant", _ANSWER)]
    try:
        rendered = encoder.render(messages, add_generation_prompt=False)
    except REFUSALS:
        return []
    _, found, end = rendered.rpartition(_ANSWER)
    return list(encoder.tokenizer(end, add_special_tokens=False).input_ids) if found else []
