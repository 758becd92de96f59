"""A policy that no step changes, checked against the rows that it answers, with its engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.config import EvaluateConfig, ModelSource
from calibrl_core.data.schema import DataSource, Example
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.models.positions import check_positions
from calibrl_core.report import Report
from calibrl_core.rollout.base import RolloutEngine
from calibrl_core.rollout.engines import make_engine
from calibrl_core.run.model_check import checked
from calibrl_core.run.row_check import all_results, check_rows


@dataclass(frozen=True)
class NamedRows:
    """Examples of a source. `field`: of the config, for messages."""

    field: str
    source: DataSource
    examples: Sequence[Example]


def load_frozen(
    config: EvaluateConfig | AuditConfig,
    model: ModelSource,
    index: int,
    rows: Sequence[NamedRows],
    report: Report,
    ranks: Ranks,
    closing: ExitStack,
) -> tuple[Policy, RolloutEngine]:
    """Return a model of the config without trained weights, and an engine that samples from it until `closing` ends.

    Args:
        index: number of the model in the config, from 0.
        rows: all rows that the model answers.

    Raises:
        DataError: the model cannot take some rows.
        ModelError: the model cannot be used as configured.
    """
    policy = load_policy(model, config.precision, form=config.prompts, frozen=True)
    all_results(*(partial(check_rows, one.field, one.source, one.examples, policy.encoder.fault) for one in rows))
    for one in rows:
        limit = config.rollout.max_completion_tokens
        if warning := check_positions(policy, f"data {one.source.name}", one.examples, limit):
            report.emit("log", level="warning", message=warning)
    every = (example for one in rows for example in one.examples)
    report.emit("checked", model_index=index, **asdict(checked(policy, model, every, report, ranks)))
    engine = make_engine(config.rollout, policy, closing, ranks)
    closing.enter_context(engine.sampling(0))  # the weights stay as they are
    return policy, engine
