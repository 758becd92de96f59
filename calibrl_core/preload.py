"""All that nearly every run imports, now or later: for `standby`, which imports it ahead of the run.

None of it may ask CUDA for its devices, or this process would see no others later; a test watches that.
"""

import sklearn.datasets  # noqa: F401
import transformers.modeling_utils
import transformers.processing_utils  # noqa: F401

import calibrl_core.evaluate
import calibrl_core.train  # noqa: F401
