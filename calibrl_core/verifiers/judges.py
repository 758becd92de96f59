"""The rewards that judge by themselves. To add one: a file here, and a member of this union."""

from calibrl_core.verifiers.choice import ChoiceReward
from calibrl_core.verifiers.embedding import EmbeddingReward
from calibrl_core.verifiers.exact import ExactReward
from calibrl_core.verifiers.format import FormatReward
from calibrl_core.verifiers.http_service import HttpReward
from calibrl_core.verifiers.judge import JudgeReward
from calibrl_core.verifiers.math import MathReward
from calibrl_core.verifiers.numeric import NumericReward
from calibrl_core.verifiers.plugin import PluginReward
from calibrl_core.verifiers.python_function import PythonReward
from calibrl_core.verifiers.string_check import StringCheckReward
from calibrl_core.verifiers.text_similarity import TextSimilarityReward

Judge = (
    MathReward
    | ChoiceReward
    | ExactReward
    | NumericReward
    | FormatReward
    | StringCheckReward
    | TextSimilarityReward
    | PluginReward
    | PythonReward
    | HttpReward
    | JudgeReward
    | EmbeddingReward
)
