"""As `calibrl_core.preload`."""

import tests.fake_trainer.evaluate
import tests.fake_trainer.train  # noqa: F401
