"""Tokens counted in a separate process, and its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from calibrl_core.data.schema import Example
from jobs.files import tokenizer_process
from jobs.files.tokenizer_process import TokenizerProcess, TokenizerRefusal, kept_tokenizer_file, tokenizer_file
from jobs.planning.expert_lengths import expert_tokens
from jobs.settings import get_settings
from tests.support.waiting import LIMIT_SECONDS
from tests.support.word_tokenizer import save_word_tokenizer


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CALIBRL_ALLOWED_ROOTS", str(tmp_path))
    monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path / "service"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_words_are_counted_without_truncation(tmp_path: Path) -> None:
    example = Example(id="1", question="a b c", answer="1")
    with TokenizerProcess(tokenizer_file(save_word_tokenizer(tmp_path / "model"))) as tokens:
        assert (tokens.prompt(example), tokens.expert("a b\nc d"), tokens.expert("<think> a")) == (3, 5, 2)


def test_experts_of_a_plan_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tokenizer_file(save_word_tokenizer(tmp_path / "model"))
    assert expert_tokens(file, ("a b", "")) == (3, 1)
    monkeypatch.setattr(tokenizer_process, "COUNTER", "no.such.module")
    assert expert_tokens(file, ("a b", "")) == (3, 1)
    assert expert_tokens(file, ("a",)) is None
    assert expert_tokens(tmp_path / "other.json", ("a",)) is None


def test_a_kept_tokenizer_is_used_unless_a_link_leads_out(tmp_path: Path) -> None:
    folder = get_settings().data_dir / "cache/models/own/model/commit"
    folder.parent.mkdir(parents=True)
    file = save_word_tokenizer(folder) / "tokenizer.json"
    assert kept_tokenizer_file(folder) == file
    with pytest.raises(TokenizerRefusal, match="the service keeps its files there"):
        tokenizer_file(folder)
    file.unlink()
    file.symlink_to(save_word_tokenizer(tmp_path / "model") / "tokenizer.json")
    with pytest.raises(TokenizerRefusal, match="leads out of"):
        kept_tokenizer_file(folder)


def test_a_folder_elsewhere_or_without_a_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_word_tokenizer(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerRefusal, match=r"has no tokenizer\.json"):
        tokenizer_file(folder)
    monkeypatch.setenv("CALIBRL_ALLOWED_ROOTS", str(tmp_path / "allowed"))
    get_settings.cache_clear()
    with pytest.raises(TokenizerRefusal, match="allowed"):
        tokenizer_file(save_word_tokenizer(folder))


def test_a_harmful_tokenizer_ends_only_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = save_word_tokenizer(tmp_path / "slow", pattern="(a|a|aa)+(?=c)(?<=(a|b))")
    broken = save_word_tokenizer(tmp_path / "broken", model={"type": "unknown"})
    monkeypatch.setattr(tokenizer_process, "LIMIT_SECONDS", 1)
    for folder in (slow, broken):
        refused = pytest.raises(TokenizerRefusal, match="cannot be read, or took more than 1 s")
        with TokenizerProcess(tokenizer_file(folder)) as tokens, refused:
            tokens.expert("a" * 50_000)


def test_a_text_for_a_process_that_has_ended_is_refused(tmp_path: Path) -> None:
    broken = tokenizer_file(save_word_tokenizer(tmp_path / "broken", model={"type": "unknown"}))
    with pytest.raises(TokenizerRefusal), TokenizerProcess(broken) as tokens:
        tokens._process.wait(LIMIT_SECONDS)
        tokens.expert("a")


@pytest.mark.slow  # loads torch
def test_no_count_exceeds_that_of_the_trainer(tmp_path: Path) -> None:
    from calibrl_core.models.tiny import build_tiny_vlm
    from calibrl_core.models.token_counts import model_tokens

    folder = tmp_path / "tiny"
    for part in build_tiny_vlm(0):
        part.save_pretrained(folder)
    trainer, experts = model_tokens(str(folder)), ("<think>It is 7.</think><answer>7</answer>", "", "7 ⅞")
    example = Example(id="1", question="What is it?", answer="7")
    with TokenizerProcess(tokenizer_file(folder)) as tokens:
        assert [trainer.expert(text) - tokens.expert(text) for text in experts[1:]] == [0, 0]
        assert 0 <= trainer.expert(experts[0]) - tokens.expert(experts[0]) <= len("<think>")
        assert 0 < tokens.prompt(example) <= trainer.prompt(example)
