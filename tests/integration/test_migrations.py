"""Migrations on a real, empty database: up, equal to the models, down, and up again."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from jobs import db
from jobs.settings import get_settings
from tests.support import rows_of_tables

pytestmark = pytest.mark.integration
CONFIG = Config(Path(__file__).parents[2] / "alembic.ini")
REVISIONS = [script.revision for script in ScriptDirectory.from_config(CONFIG).walk_revisions()][::-1]


@pytest.fixture
def empty(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"migrations_{uuid4().hex}"
    server = postgres_url.replace("+psycopg", "")
    url = f"{server.rpartition('/')[0]}/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        monkeypatch.setenv("DATABASE_URL", url)
        get_settings.cache_clear()
        yield url
        db.dispose()
        get_settings.cache_clear()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_up_down_and_up_again(empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # from any folder
    command.upgrade(CONFIG, "head")
    command.check(CONFIG)  # the models say the same
    assert {"jobs", "projects", "metrics"} <= tables(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT slug FROM projects").fetchall() == [("default",)]
    command.downgrade(CONFIG, "base")
    assert tables(empty) == {"alembic_version"}
    command.upgrade(CONFIG, "head")
    command.check(CONFIG)


@pytest.mark.parametrize(
    "revision", [REVISIONS[0], *(pytest.param(revision, marks=pytest.mark.slow) for revision in REVISIONS[1:])]
)
def test_rows_of_every_revision_outlive_the_way_up(empty: str, revision: str) -> None:
    engine = sa.create_engine(empty.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    command.upgrade(CONFIG, revision)
    with engine.begin() as connection:
        filled = rows_of_tables.fill(connection)
        before = rows_of_tables.contents(connection, filled)
    if REVISIONS.index(revision) < REVISIONS.index("2026_11_24_queue"):
        del before["workers"]  # those that run register again
    command.upgrade(CONFIG, "head")
    command.check(CONFIG)
    with engine.connect() as connection:
        after = rows_of_tables.contents(connection, filled)
    for table, rows in before.items():
        for key, row in rows.items():
            kept = {name: value for name, value in row.items() if name in after[table][key]}
            assert rows_of_tables.holds(after[table][key], kept), f"{table} {key}"
    command.downgrade(CONFIG, "base")
    assert tables(empty) == {"alembic_version"}
    command.upgrade(CONFIG, "head")


def test_a_model_without_its_migration_is_noticed(empty: str) -> None:
    command.upgrade(CONFIG, "head")
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("ALTER TABLE jobs DROP COLUMN message")
    with pytest.raises(CommandError, match="message"):
        command.check(CONFIG)


def test_blocks_are_made_of_the_metrics_that_are_there(empty: str) -> None:
    command.upgrade(CONFIG, "2026_11_24_access")
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(
            'INSERT INTO jobs (id, name, kind, project, "user", priority, labels, gpus, spec, status, attempt, step,'
            " samples_dropped, log_length, forgiven, preempted) VALUES (gen_random_uuid(), 'j', 'train', 'default',"
            " 'u', 'normal', '{}', 0, '{}', 'queued', 0, 0, false, 0, 0, false)"
        )
        connection.execute(
            "INSERT INTO metrics SELECT jobs.id, n, now(), CASE n WHEN 33 THEN jsonb_build_object('a', 'NaN')"
            " ELSE jsonb_build_object('a', n) END FROM jobs, generate_series(30, 70) AS n"
        )
        command.upgrade(CONFIG, "head")
        blocks = "SELECT start, first_step, last_step, count, non_finite, min, max, sum, last FROM metric_blocks"
        found = connection.execute(f"{blocks} ORDER BY start".encode()).fetchall()
    assert found[:2] == [(0, 30, 31, 2, 0, 30, 31, 61, 31), (32, 32, 63, 31, 1, 32, 63, sum(range(32, 64)) - 33, 63)]
    assert [row[0] for row in found] == [0, 32, 64]


def test_the_feed_begins_with_the_records_of_existing_jobs(empty: str) -> None:
    command.upgrade(CONFIG, "2026_11_24_queue")
    with psycopg.connect(empty, autocommit=True) as connection:
        job, bare = (
            connection.execute(
                """
                INSERT INTO jobs (id, name, kind, project, "user", priority, labels, gpus, spec, status, attempt,
                                  forgiven, step, preempted, log_length, samples_dropped)
                VALUES (gen_random_uuid(), 'old', 'train', 'default', 'user', 'normal', '{}', 0, '{}', 'running', 1,
                        0, 250, false, %s, false)
                RETURNING id
                """,
                [log],
            ).fetchall()[0][0]
            for log in (70_000, 0)
        )
        connection.execute(
            "INSERT INTO metrics (job_id, step, ts, values) SELECT %s, n, now(), '{}' FROM generate_series(1, 250) n",
            [job],
        )
        event = "INSERT INTO events (job_id, type, actor) VALUES (%s, 'queued', 'user')"
        connection.execute(event, [job])
        connection.execute(event, [bare])
        command.upgrade(CONFIG, "head")
        feed = "SELECT cursor, parts FROM feed WHERE job_id = %s ORDER BY cursor"
        assert connection.execute(feed, [job]).fetchall() == [
            (1, [["events", 1, 1]]),
            (2, [["metrics", 1, 99]]),
            (3, [["metrics", 100, 199]]),
            (4, [["metrics", 200, 250]]),
            (5, [["log", 0, 65_536]]),
            (6, [["log", 65_536, 70_000]]),
        ]
        assert connection.execute(feed, [bare]).fetchall() == [(1, [["events", 2, 2]])]
        jobs = "SELECT feed FROM jobs ORDER BY feed"
        assert connection.execute(jobs).fetchall() == [(1,), (6,)]
        command.downgrade(CONFIG, "2026_11_24_queue")


def test_existing_groups_get_their_means(empty: str) -> None:
    command.upgrade(CONFIG, "2026_11_24_evaluations")
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(
            'INSERT INTO jobs (id, name, kind, project, "user", priority, labels, gpus, spec, status, attempt, step,'
            " samples_dropped, log_length, forgiven, preempted, notes) VALUES (gen_random_uuid(), 'j', 'train',"
            " 'default', 'u', 'normal', '{}', 0, '{}', 'queued', 0, 0, false, 0, 0, false, '')"
        )
        first, second = (
            '{"entropies": [1, 2], "gaps": [4, null], "advantage": -0.5}',
            '{"entropies": [3, "NaN"], "advantage": 1.5}',
        )
        group = f'{{"completions": [{first}, {second}]}}'
        for text in (group, '{"completions": []}'):
            connection.execute(
                'INSERT INTO samples (job_id, step, prompt_id, passed, size, bytes, "group")'
                " SELECT id, 1, 'p', 0, 2, 9, %s FROM jobs",
                [text],
            )
        command.upgrade(CONFIG, "head")
        found = connection.execute("SELECT entropy, rareness, gap FROM samples ORDER BY id").fetchall()
    assert found == [(2.0, 1.0, 4.0), (None, None, None)]


def test_existing_alerts_get_their_fields(empty: str) -> None:
    """The first sentence ends at a full stop before a space, not within a number."""
    command.upgrade(CONFIG, "2026_11_30_study_order")
    fired = "entropy_collapse fired at step 30: the entropy was 0.01 (limit 0.05). Lower optimizer.lr. Or fork."
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(
            'INSERT INTO jobs (id, name, kind, project, "user", priority, labels, gpus, spec, status, attempt, step,'
            " samples_dropped, log_length, forgiven, preempted, notes) VALUES (gen_random_uuid(), 'j', 'train',"
            " 'default', 'u', 'normal', '{}', 0, '{}', 'queued', 0, 0, false, 0, 0, false, '')"
        )
        for message in (fired, "no_advantage cleared at step 45: all differ.", "words of another form"):
            connection.execute(
                "INSERT INTO events (job_id, type, actor, message) SELECT id, 'health', 'w', %s FROM jobs", [message]
            )
        command.upgrade(CONFIG, "head")
        found = [row[0] for row in connection.execute("SELECT alert FROM events ORDER BY id")]
    assert found == [
        {
            "rule": "entropy_collapse",
            "state": "fired",
            "step": 30,
            "message": "the entropy was 0.01 (limit 0.05)",
            "suggestion": "Lower optimizer.lr. Or fork.",
        },
        {"rule": "no_advantage", "state": "cleared", "step": 45, "message": "all differ", "suggestion": ""},
        None,
    ]
