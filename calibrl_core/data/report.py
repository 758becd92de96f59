"""The data report: what a source holds, and which of its rows harm a training job. Reads each row once, as a trainer
reads it, with a batch of rows in memory, and of all earlier rows only numbers and digests.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol, get_args

from calibrl_core.data.files import RowProblem, read_examples
from calibrl_core.data.image_decoding import image_kind
from calibrl_core.data.image_keys import ImageKeys
from calibrl_core.data.repeats import HeldOut, Overlap, Repeats, prompt_key
from calibrl_core.data.report_facts import DataReport, ImageReport, ReportWarning, Spread
from calibrl_core.data.report_warnings import FoundRows
from calibrl_core.data.schema import DataError, Example, FileData, completed
from calibrl_core.data.source_facts import SourceFacts
from calibrl_core.verifiers.base import answer_form, read_truth
from calibrl_core.verifiers.explain import truth_kind
from calibrl_core.verifiers.math import MathReward
from calibrl_core.verifiers.parsing import unparsed
from calibrl_core.verifiers.pool import WorkerPool
from calibrl_core.verifiers.refusals import (
    expert_judges,
    judging_rewards,
    refusals,
    refusing_labels,
    sees_images,
    truth_as_completion,
)
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import Scorer

MOST_ROWS = 1_000_000  # of a report; each needs about 300 bytes of memory
MOST_PIXELS = 2_000_000_000  # that a report decodes, to compare images: about a minute
TOGETHER, LARGEST_TOGETHER = 256, 2_000_000  # rows that are judged together; their characters and bytes of images
LONGEST_SHOWN = 60  # characters of an answer in a message
SHARES = 10  # intervals of pass ratios
NOT_READ = ("long text", "nothing")  # kinds of truths
Judge = Callable[[Sequence[RewardInput]], Sequence[tuple[str, ...]]]


class TokenCounter(Protocol):
    """Counts tokens as the trainer does."""

    def prompt(self, example: Example) -> int:
        """Return the tokens of a prompt, with its images. Raises DataError."""

    def expert(self, expert: str) -> int:
        """Return the tokens of an expert, with the end of its turn."""


@dataclass(frozen=True)
class ReportLimits:
    """Limits of a report; beyond, rows are not read. `pixels`: as of `ImageKeys`. `seconds`: of the CPU, for each
    source.
    """

    rows: int = MOST_ROWS
    pixels: int = MOST_PIXELS
    image_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report."""

    rewards: Sequence[Reward]
    against: FileData | None = None  # validation data
    tokens: TokenCounter | None = None
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None
    limits: ReportLimits = ReportLimits()
    with_workers: bool = False  # also find verdicts that need worker processes; otherwise those count as accepted


@dataclass(frozen=True)
class CheckedData:
    """A report, and the rows that harm a job: the kind of the worst warning by number of the row."""

    report: DataReport
    dropped: dict[int, str]
    names_files: bool  # rows name image files


def check_data(source: FileData, settings: ReportSettings) -> CheckedData:
    """Read a source and report on it.

    Raises:
        DataError: the validation data cannot be read.
        RuntimeError: worker processes cannot be started.
    """
    keys = ImageKeys(settings.limits.pixels)
    held_out = _held_out(settings.against, settings.limits, keys) if settings.against else None
    with ExitStack() as stack:
        reader = ReportReader(settings, keys, held_out, _judges(settings, stack))
        facts, limit = SourceFacts(), _Limit(settings.limits)
        complete = True
        for item in read_examples(source, facts, answers=read_truth(settings.rewards)):
            if limit.reached(item):
                complete = False
                break
            reader.add(item)
        return reader.finish(source, facts, complete=complete)


class _Limit:
    """Notices when the limits are reached; the first row is always read."""

    def __init__(self, limits: ReportLimits) -> None:
        self._limits, self._started = limits, time.thread_time()
        self._rows = self._bytes = 0

    def reached(self, item: Example | RowProblem) -> bool:
        limits, used = self._limits, time.thread_time() - self._started
        over = self._rows >= limits.rows or (limits.image_bytes is not None and self._bytes >= limits.image_bytes)
        if over or (self._rows and limits.seconds is not None and used > limits.seconds):
            return True
        self._rows += 1
        self._bytes += sum(map(len, item.images)) if isinstance(item, Example) else 0
        return False


def _held_out(source: FileData, limits: ReportLimits, keys: ImageKeys) -> HeldOut:
    found, limit = HeldOut(), _Limit(limits)
    for item in read_examples(source, answers=False):
        if isinstance(item, RowProblem) and item.row is None:
            raise DataError(str(item))
        if limit.reached(item):
            break
        if isinstance(item, Example):
            images = keys.of(item)
            found.add(item, images, prompt_key(item, images))
    return found


@dataclass(frozen=True)
class _Judges:
    """Functions that find the labels of the rewards that refuse completions: truths as their own answers, and experts.
    `not_asked`: a warning that names the rewards that judge no expert.
    """

    of_truths: Judge
    of_experts: Judge
    parser: WorkerPool | None
    asks_experts: bool
    not_asked: str | None
    see_images: bool


def _judges(settings: ReportSettings, stack: ExitStack) -> _Judges | None:
    """Return the judges of a report, or None without rewards. `stack` ends their processes."""
    asked, not_asked = expert_judges(settings.rewards, with_workers=settings.with_workers)
    if not (asked or not_asked):
        return None
    comparing = judging_rewards(settings.rewards)
    of_experts = _judge_of(asked, stack, with_workers=settings.with_workers)
    of_truths = of_experts if comparing == asked else _judge_of(comparing, stack, with_workers=settings.with_workers)
    parses = settings.with_workers and any(isinstance(reward, MathReward) for reward in comparing)
    parser = stack.enter_context(WorkerPool([MathReward()])) if parses else None
    return _Judges(of_truths, of_experts, parser, bool(asked), not_asked, sees_images(asked))


def _judge_of(rewards: Sequence[Reward], stack: ExitStack, *, with_workers: bool) -> Judge:
    scorer = stack.enter_context(Scorer(rewards)) if with_workers and rewards else None

    def settled(seen: Sequence[RewardInput]) -> Sequence[tuple[str, ...]]:
        labels = refusals(rewards, seen, seconds=float("inf"), with_workers=False).labels
        return [labels.get(index, ()) for index in range(len(seen))]

    def scored(seen: Sequence[RewardInput]) -> Sequence[tuple[str, ...]]:
        assert scorer is not None
        return [refusing_labels(score) for score in scorer.grade(seen)]

    return scored if scorer else settled


class ReportReader:
    """Collects the facts of rows. Without judges, neither answers nor experts are judged."""

    def __init__(
        self,
        settings: ReportSettings,
        keys: ImageKeys,
        held_out: HeldOut | None = None,
        judges: _Judges | None = None,
    ) -> None:
        self._settings, self._keys, self._held_out, self._judges = settings, keys, held_out, judges
        self._form = answer_form(settings.rewards)
        self._found, self._repeats = FoundRows(), Repeats()
        self._counts: Counter[str] = Counter()
        self._truths: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()
        self._converted: Counter[str] = Counter()
        self._sizes = {name: array("Q") for name in _SIZES}
        self._shares = [0] * SHARES
        self._pending: list[tuple[int, Example]] = []  # rows to judge, without images that no reward sees
        self._pending_size = 0  # characters and bytes of images
        self.images: list[bytes] = []  # keys of those of the last row

    def add(self, item: Example | RowProblem) -> None:
        """Take the next row."""
        if isinstance(item, RowProblem):
            if item.row is None:
                self._found.add("unreadable", 0, item.text)
                return
            self._counts["rows"] += 1
            self._found.add("invalid", item.row, item.text)
            return
        self._counts["rows"] += 1
        row = self._counts["rows"]
        self._look_at_texts(row, item)
        self.images = self._keys.of(item)
        self._look_at_images(item)
        self._look_at_repeats(row, item, self.images)
        if self._settings.tokens:
            self._count_tokens(row, item, self._settings.tokens)
        if self._judges:
            self._keep(row, item, self._judges)

    @property
    def rows(self) -> int:
        """Return the number of rows so far."""
        return self._counts["rows"]

    @property
    def prompts(self) -> frozenset[bytes]:
        """Return the digests of all prompts so far."""
        return self._repeats.prompts

    def warnings(self) -> list[ReportWarning]:
        """Return the warnings of the rows so far, the most harmful one first."""
        self._judge_pending()
        settings = self._settings
        return self._found.warnings(
            {
                "rows": self._counts["rows"],
                "experts": self._counts["experts"],
                "max_prompt_tokens": settings.max_prompt_tokens,
                "max_completion_tokens": settings.max_completion_tokens,
            }
        )

    def _look_at_texts(self, row: int, example: Example) -> None:
        characters = len(example.question) + sum(len(turn.text) for turn in example.earlier)
        self._sizes["prompt_characters"].append(characters)
        if example.expert:
            self._counts["experts"] += 1
            self._sizes["expert_characters"].append(len(example.expert))
        if example.pass_ratio is not None:
            place = min(SHARES - 1, max(0, int(example.pass_ratio * SHARES)))
            self._shares[place] += 1
        kind = truth_kind(example.answer)
        self._truths[kind] += 1
        if kind in NOT_READ and example.answer:
            self._found.add("read_as_text", row)

    def _look_at_images(self, example: Example) -> None:
        self._counts["with_images"] += bool(example.images)
        for image in example.images:
            self._counts["images"] += 1
            self._counts["files"] += hasattr(image, "path")
            kind = image_kind(image)
            self._formats[kind.format] += 1
            self._converted.update(kind.converted)
            self._sizes["width"].append(kind.width)
            self._sizes["height"].append(kind.height)

    def _look_at_repeats(self, row: int, example: Example, images: list[bytes]) -> None:
        key = prompt_key(example, images)
        if self._held_out and (overlap := self._held_out.overlap(example, images, key)):
            self._found.add(overlap, row)
        if repeat := self._repeats.kind(example, images, key):
            self._found.add(repeat, row)

    def _count_tokens(self, row: int, example: Example, tokens: TokenCounter) -> None:
        settings = self._settings
        try:
            prompt = tokens.prompt(example)
        except DataError as problem:
            self._found.add("refused_by_model", row, str(problem))
            return
        self._sizes["prompt_tokens"].append(prompt)
        if settings.max_prompt_tokens and prompt > settings.max_prompt_tokens:
            self._found.add("long_prompts", row)
        if example.expert:
            expert = tokens.expert(example.expert)
            self._sizes["expert_tokens"].append(expert)
            if settings.max_completion_tokens and expert > settings.max_completion_tokens:
                self._found.add("long_experts", row)

    def _keep(self, row: int, example: Example, judges: _Judges) -> None:
        """Keep a row until it is judged, with others."""
        images = example.images if judges.see_images and example.expert else ()
        self._pending.append((row, replace(example, images=images)))
        self._pending_size += len(example.answer) + len(example.expert or "") + sum(map(len, images))
        if len(self._pending) >= TOGETHER or self._pending_size >= LARGEST_TOGETHER:
            self._judge_pending()

    def _judge_pending(self) -> None:
        pending, self._pending, self._pending_size = self._pending, [], 0
        if self._judges is None:
            return
        truths = list(dict.fromkeys(one.answer for _, one in pending))
        as_answers = [RewardInput(truth_as_completion(truth, self._form), truth) for truth in truths]
        refused = self._judges.of_truths(as_answers)
        hopeless = {truth: labels for truth, labels in zip(truths, refused, strict=True) if labels}
        for row, one in pending:
            if labels := hopeless.get(one.answer):
                reason = f"the reward {', '.join(labels)} refuses even '{_shown(one.answer)}' itself"
                self._found.add("unearnable", row, reason)
        if self._judges.parser:
            self._find_unparsed(pending, unparsed(truths, self._judges.parser))
        experts = [(row, one) for row, one in pending if one.expert and one.answer not in hopeless]
        if self._judges.not_asked and experts and not self._found.count("not_asked"):
            self._found.add("not_asked", 0, self._judges.not_asked)
        if experts and self._judges.asks_experts:
            self._judge_experts(experts, self._judges.of_experts)

    def _find_unparsed(self, rows: Sequence[tuple[int, Example]], truths: set[str]) -> None:
        for row, one in rows:
            if one.answer in truths:
                self._truths.subtract(["expression"])
                self._truths["not parsed"] += 1
                self._found.add("unparsed", row, f"'{_shown(one.answer)}'")

    def _judge_experts(self, experts: Sequence[tuple[int, Example]], judge: Judge) -> None:
        seen = [one for _, example in experts for one in completed([example], [example.expert or ""])]
        for (row, one), labels in zip(experts, judge(seen), strict=True):
            self._counts["judged"] += 1
            if labels:
                self._found.add("wrong_experts", row, f"{', '.join(labels)} with the answer '{_shown(one.answer)}'")

    def finish(self, source: FileData, facts: SourceFacts, *, complete: bool) -> CheckedData:
        """Return the report."""
        warnings = self.warnings()
        counts, found, settings = self._counts, self._found, self._settings
        valid = counts["rows"] - found.count("invalid")
        cuts = settings.tokens is not None and settings.max_completion_tokens is not None
        report = DataReport(
            name=source.name,
            rows=counts["rows"],
            complete=complete,
            invalid=found.count("invalid"),
            formats={facts.form.title: valid} if facts.form and valid else {},
            used_columns=sorted(facts.used & facts.columns),
            unused_columns=list(facts.unused),
            with_expert=counts["experts"],
            with_images=counts["with_images"],
            images=self._image_report(),
            **{name: _spread(self._sizes[name]) for name in _SIZES if name not in ("width", "height")},
            **{name: found.count(name) for name in ("duplicates", "contradictions", "near_duplicates", "unearnable")},
            **{name: found.count(name) if self._held_out else None for name in get_args(Overlap)},
            truths={kind: count for kind, count in self._truths.most_common() if count},
            judged_experts=counts["judged"],
            right_experts=counts["judged"] - found.count("wrong_experts"),
            cut_experts=found.count("long_experts") if cuts else None,
            pass_ratios=self._shares if any(self._shares) else [],
            warnings=warnings,
        )
        return CheckedData(report, found.dropped, names_files=counts["files"] > 0)

    def _image_report(self) -> ImageReport:
        return ImageReport(
            count=self._counts["images"],
            formats=dict(self._formats.most_common()),
            converted=dict(self._converted.most_common()),
            decoded=self._keys.decoded,
            width=_spread(self._sizes["width"]),
            height=_spread(self._sizes["height"]),
        )


def _shown(truth: str) -> str:
    return truth if len(truth) <= LONGEST_SHOWN else f"{truth[:LONGEST_SHOWN]} ..."


_SIZES = ("prompt_characters", "expert_characters", "prompt_tokens", "expert_tokens", "width", "height")


def _spread(sizes: array[int]) -> Spread | None:
    """Return the spread of sizes, or None without any. Percentiles are those of the nearest rank."""
    if not sizes:
        return None
    ordered = sorted(sizes)
    last = len(ordered) - 1
    return Spread(
        count=len(ordered),
        smallest=ordered[0],
        median=ordered[last // 2],
        p95=ordered[round(0.95 * last)],
        largest=ordered[-1],
    )
