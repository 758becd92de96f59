"""The built-in reward verifiers. `registry` has the union of these that a spec can name."""

from calibrl_core.verifiers.choice import ChoiceReward
from calibrl_core.verifiers.exact import ExactReward
from calibrl_core.verifiers.format import FormatReward
from calibrl_core.verifiers.math import MathReward
from calibrl_core.verifiers.numeric import NumericReward
from calibrl_core.verifiers.plugin import PluginReward
from calibrl_core.verifiers.python_function import PythonReward

__all__ = ["ChoiceReward", "ExactReward", "FormatReward", "MathReward", "NumericReward", "PluginReward", "PythonReward"]
