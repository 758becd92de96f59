"""The service that the dashboard under test reads."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import streamlit as st

from calibrl.client import Client
from calibrl.schemas import Job, Role
from dashboard import signin
from dashboard.reads import service
from jobs.settings import get_settings
from tests.support.dashboard.world import Recorder, World
from tests.support.rest import fresh_app, serving


@pytest.fixture
def world(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The real API on an empty database. The viewer is ann, a member of the project default."""
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "3600")
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "3600")  # machines of a slow test stay online
    get_settings.cache_clear()
    world = World()
    world.sign_in("ann", {"default": Role.MEMBER})
    monkeypatch.setattr(signin, "sent_cookies", lambda: {signin.COOKIE: world.key} if world.key else {})
    with serving(Recorder(fresh_app(), world)) as client, ExitStack() as clients:
        monkeypatch.setenv("CALIBRL_API_URL", str(client.base_url))
        monkeypatch.setattr(service, "Client", lambda **options: clients.enter_context(Client(**options)))
        yield world
        st.cache_data.clear()
        st.cache_resource.clear()


@pytest.fixture
def measured(world: World) -> Job:
    """A running job with the metrics and histograms of 100 steps."""
    job = world.add()
    world.measure(job, range(1, 101))
    return world.job(job.id)
