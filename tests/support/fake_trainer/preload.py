"""Fake counterpart of `calibrl_core.preload`."""

import tests.support.fake_trainer.evaluate
import tests.support.fake_trainer.train  # noqa: F401
