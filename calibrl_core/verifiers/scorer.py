"""Scores completions: the verdicts of all verifiers, their weighted sum, and whether the answer passed."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from calibrl_core.verifiers.base import Deferred, OnFailure, Verdict, Verifier, answer_form, follows_format, judges_of
from calibrl_core.verifiers.plugin import plugin_versions
from calibrl_core.verifiers.pool import VerdictRequest, WorkerPool
from calibrl_core.verifiers.python_function import check_sandbox
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.remote import RemoteVerifier
from calibrl_core.verifiers.reward_input import RewardInput, image_name
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy
from calibrl_core.verifiers.services import Services
from calibrl_core.verifiers.verdict_cache import VerdictCache, content_key

NO_SERVICES = Services()
NOT_JUDGED_BY = {"weight", "on_failure"}  # settings that change no verdict


@dataclass(frozen=True)
class Score:
    """Verdicts on a completion."""

    by_verifier: dict[str, float]  # by label, 0.0 to 1.0, before weights
    reward: float  # weighted sum
    passed: bool  # every verifier that judges the answer accepts it; the format has no effect
    strict: bool  # passed, and in the required format
    failure: str | None = None  # reason why a verifier gave no verdict (too slow, died), which counts as 0
    failed: tuple[str, ...] = ()  # labels of the verifiers that gave no verdict
    seconds: dict[str, float] = field(default_factory=dict)  # by label, of verdicts that were not found at once
    cached: tuple[str, ...] = ()  # labels of the verifiers whose verdict was known from equal content
    tokens: dict[str, int] = field(default_factory=dict)  # by label, of models that judged
    refused: tuple[str, ...] = ()  # labels of the verifiers whose model refused to judge


def failure_counts(scores: Iterable[Score]) -> Counter[str]:
    """Return how many verdicts each verifier failed to give, by its label."""
    return Counter(label for score in scores for label in score.failed)


class NoVerdictError(Exception):
    """A verifier gave no verdict where the run needs one. The message has the reason."""


def check_verdicts(scores: Sequence[Score]) -> None:
    """Check that each verifier gave a verdict on at least one completion.

    Raises:
        NoVerdictError: one gave none.
    """
    for label, count in failure_counts(scores).items():
        if count == len(scores):
            reason = next((score.failure for score in scores if score.failed[0] == label), "the log has the reason")
            raise NoVerdictError(
                f"rewards: {label} gave no verdict on any of {count} completions ({reason}); "
                "fix or remove this verifier"
            )


def labels_with(rewards: Iterable[Reward], policy: OnFailure) -> set[str]:
    """Return the labels of the verifiers with a policy for missing verdicts."""
    return {reward.label for reward in rewards if reward.on_failure == policy}


def check_needed(reasons: Iterable[str | None]) -> None:
    """Check that no verdict is missing that `on_failure: stop` requires. `reasons`: of `Scorer.stop_reason`.

    Raises:
        NoVerdictError: one is.
    """
    for reason in filter(None, reasons):
        raise NoVerdictError(f"rewards: no verdict, and on_failure is stop ({reason}); fix this verifier, then resume")


class _Asked(NamedTuple):
    """A verdict that was deferred, and the digest of its content."""

    key: bytes
    request: VerdictRequest
    images: tuple[bytes, ...]


class Scorer:
    """Scores batches with given verifiers. Verdicts that plain text decides are found here; the others in worker
    processes, which start at the first request, or by services. Equal content is judged once. A context manager:
    `close` ends the processes.

    Args:
        sandbox: permissions for functions of users.
        services: services that verifiers can ask.

    Raises:
        PluginError: a plugin is not installed, or this machine cannot run functions of users.
        RewardServiceError: `services` lacks one that a verifier names.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        workers: int | None = None,
        sandbox: SandboxPolicy = NO_PERMISSIONS,
        services: Services = NO_SERVICES,
    ) -> None:
        check_sandbox(rewards, sandbox)
        self._rewards, self._services = rewards, services
        self._judges = list(judges_of(rewards))
        self.versions = plugin_versions(self._judges)  # of each plugin, by label
        self._form = answer_form(self._judges)
        self._keys = [self._settings_key(judge) for judge in self._judges]
        self._remote = {index: one for index, one in enumerate(self._judges) if isinstance(one, RemoteVerifier)}
        for judge in self._remote.values():
            judge.check_allowed(services)
        self._pool = WorkerPool(self._judges, workers, sandbox)
        self._cache = VerdictCache()
        self._stops = labels_with(rewards, "stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes. A later batch starts new ones."""
        self._pool.close()

    def score_all(self, completions: Sequence[str], truths: Sequence[str]) -> list[Score]:
        """Return the score of each completion against its truth, in order. Rewards see nothing else: see `grade`."""
        return self.grade([RewardInput(*pair) for pair in zip(completions, truths, strict=True)])

    def grade(self, inputs: Sequence[RewardInput]) -> list[Score]:
        """Return the score of each input, in order.

        Raises:
            PluginError: a verifier cannot be loaded.
            RuntimeError: worker processes cannot be started.
        """
        each = zip(inputs, self.verdicts(inputs), strict=True)
        return [self._score(seen.completion, verdicts) for seen, (verdicts, _) in each]

    def verdicts(self, inputs: Sequence[RewardInput]) -> list[tuple[list[Verdict], list[Verdict]]]:
        """Return per input the verdict of each reward, in the reward's own range, and that of each verifier that
        judges, parts of rewards among them. Errors as `grade`.
        """
        rows = [[self._settle(index, seen) for index in range(len(self._judges))] for seen in inputs]
        found = self._find([one for row in rows for one in row if isinstance(one, _Asked)])
        judged = [[found.take(one) if isinstance(one, _Asked) else one for one in row] for row in rows]
        return [([_verdict(reward, left) for reward in self._rewards], row) for row in judged for left in [iter(row)]]

    def stop_reason(self, scores: Iterable[Score]) -> str | None:
        """Return why a verdict is missing that `on_failure: stop` requires, or None if none is."""
        for score in scores:
            for label in self._stops.intersection(score.failed):
                return score.failure if label == score.failed[0] else f"{label}: after another verifier failed, too"
        return None

    def _settings_key(self, judge: Verifier) -> str:
        settings = judge.model_dump(mode="json", exclude=NOT_JUDGED_BY)
        return json.dumps([settings, self.versions.get(judge.label)])

    def _settle(self, index: int, seen: RewardInput) -> Verdict | _Asked:
        judge = self._judges[index]
        try:
            score = judge.settle(seen)
        except ValueError as error:
            return Verdict(0.0, f"{judge.label}: {error}")
        if not isinstance(score, Deferred):
            return Verdict(score)
        key = content_key(self._keys[index], score.text, score.truth)
        return _Asked(key, VerdictRequest(index, score.text, score.truth), score.images)

    def _find(self, asked: Sequence[_Asked]) -> "_Found":
        """Return the verdicts: those that are known, and the others from the worker processes."""
        known, unknown = dict[bytes, Verdict](), dict[bytes, _Asked]()
        for one in asked:
            value = self._cache.get(one.key)
            if value is None:
                unknown.setdefault(one.key, one)
            else:
                known[one.key] = Verdict(value, cached=True)
        images = {image_name(image): image for one in unknown.values() for image in one.images}
        remote = [one for one in unknown.values() if one.request.verifier in self._remote]
        local = [one.request for one in unknown.values() if one.request.verifier not in self._remote]
        with ThreadPoolExecutor(1) as asking:  # services work while the worker processes do
            asked_for = asking.submit(self._ask, remote) if remote else None
            judged = self._pool.judge(local, images)
            judged |= asked_for.result() if asked_for else {}
        new = {key: judged[one.request] for key, one in unknown.items()}
        for key, verdict in new.items():
            if verdict.failure is None:
                self._cache.put(key, verdict.value)
        return _Found(known | new)

    def _ask(self, asked: Sequence[_Asked]) -> dict[VerdictRequest, Verdict]:
        """Return the verdicts of services, which all work at the same time."""

        async def of_one(index: int, judge: RemoteVerifier) -> dict[VerdictRequest, Verdict]:
            own = [one for one in asked if one.request.verifier == index]
            given = await judge.ask([Deferred(*one.request[1:], one.images) for one in own], self._services)
            return {one.request: _named(judge, verdict) for one, verdict in zip(own, given, strict=True)}

        async def of_all() -> list[dict[VerdictRequest, Verdict]]:
            return await asyncio.gather(*(of_one(*each) for each in self._remote.items()))

        return {request: verdict for found in asyncio.run(of_all()) for request, verdict in found.items()}

    def _score(self, completion: str, verdicts: Sequence[Verdict]) -> Score:
        pairs = list(zip(self._rewards, verdicts, strict=True))
        values = {reward.label: _scaled(reward, verdict) for reward, verdict in pairs}
        passed = all(values[reward.label] >= 0.5 for reward in self._rewards if reward.judges_answer)
        return Score(
            by_verifier=values,
            reward=sum(reward.weight * values[reward.label] for reward in self._rewards),
            passed=passed,
            strict=passed and follows_format(completion, self._form),
            failure=next((verdict.failure for _, verdict in pairs if verdict.failure), None),
            failed=tuple(reward.label for reward, verdict in pairs if verdict.failure),
            seconds={reward.label: verdict.seconds for reward, verdict in pairs if verdict.seconds},
            cached=tuple(reward.label for reward, verdict in pairs if verdict.cached),
            tokens={reward.label: verdict.tokens for reward, verdict in pairs if verdict.tokens},
            refused=tuple(reward.label for reward, verdict in pairs if verdict.refused),
        )


def _named(judge: Verifier, verdict: Verdict) -> Verdict:
    return verdict._replace(failure=verdict.failure and f"{judge.label}: {verdict.failure}")


class _Found:
    """Verdicts by the digest of their content. The first one that is taken has the time and tokens spent on it."""

    def __init__(self, verdicts: dict[bytes, Verdict]) -> None:
        self._verdicts = verdicts

    def take(self, asked: _Asked) -> Verdict:
        verdict = self._verdicts[asked.key]
        self._verdicts[asked.key] = verdict._replace(seconds=0.0, tokens=0, cached=verdict.failure is None)
        return verdict


def _verdict(reward: Verifier, judged: Iterator[Verdict]) -> Verdict:
    """Return the verdict of a reward, which `judged` has next, or that follows from those of its parts."""
    if not reward.parts:
        return next(judged)
    parts = {name: _verdict(part, judged) for name, part in reward.parts.items()}
    seconds, cached = sum(part.seconds for part in parts.values()), any(part.cached for part in parts.values())
    failure = next((part.failure for part in parts.values() if part.failure), None)
    try:
        value = 0.0 if failure else reward.combine({name: part.value for name, part in parts.items()})
    except (ArithmeticError, ValueError) as error:
        value, failure = 0.0, str(error)
    tokens, refused = sum(part.tokens for part in parts.values()), any(part.refused for part in parts.values())
    return Verdict(value, failure and f"{reward.label}: {failure}", seconds, cached, tokens, refused)


def _scaled(reward: Verifier, verdict: Verdict) -> float:
    low, high = reward.bounds
    return 0.0 if verdict.failure else (verdict.value - low) / (high - low)
