"""Imports everything that nearly every run needs; `standby` imports this module before the run starts.

Imports here must not ask CUDA for its devices: this process could then see no other devices later. A test checks it.
"""

import calibrl_core.models.hidden_packages

# isort: split
import sklearn.datasets  # noqa: F401
import transformers.modeling_utils
import transformers.processing_utils  # noqa: F401

import calibrl_core.evaluate
import calibrl_core.train  # noqa: F401
