"""Multimodal-Open-R1 and its kin: `problem` and a `solution` that states the answer (in <answer>, or in a box as in
MATH and OpenR1-Math). CLEVR's and GeoQA's forms of R1-V have the truth alone in it: `<answer> 3 </answer>`.
"""

from calibrl_core.data.conversations import expert_of, with_reasoning
from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import with_row_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example
from calibrl_core.data.truths import stated_answer, truth


def read(row: Row) -> Example:
    """Return the row's example. The answer is in `answer`, or stated by `solution`, which is the expert if it says
    more than the answer, or if it is named as the column of experts.

    Raises:
        DataError: a cell is invalid.
    """
    given, solution = row.cell("answer", role="answer"), row.cell("solution")
    cell = solution if given.value is None else given
    stated = stated_answer(str(cell.value)) or truth(cell)
    asked = question_text(row.cell("problem", role="question"))
    asked, known = with_row_options(row, asked, cell._replace(value=stated))
    expert = expert_of(row, row.cell("solution", role="expert"))
    taught = row.columns.named("expert") is not None or (expert is not None and _says_more(expert, stated))
    return make_example(
        row,
        question=asked,
        answer=known,
        images=row.images(),
        expert=with_reasoning(row, expert if taught else None, known),
    )


def _says_more(solution: str, known: str) -> bool:
    """Return if a solution holds words beside the answer and its wrapper."""
    rest = solution.replace(known, "", 1)
    for wrapper in ("<answer>", "</answer>", "####", "\\boxed{", "}", "$", "."):
        rest = rest.replace(wrapper, "")
    return bool(rest.strip())


NO_ANSWER = "column 'solution' must hold the answer, as text or a number: a reward compares with it"
PROBLEM, SOLUTION = question("problem"), Need(("solution",))
FORMATS = (
    RowFormat(
        "open-r1",
        "Open-R1's format",
        read,
        (PROBLEM, SOLUTION),
        Rank.BENCHMARK,
        (("original_question",),),
        no_answer=NO_ANSWER,
    ),
    RowFormat("open-r1", "Open-R1's format", read, (PROBLEM, SOLUTION, answer("answer")), Rank.BENCHMARK),
    RowFormat("clevr", "CLEVR's format of R1-V", read, (PROBLEM, SOLUTION), Rank.BENCHMARK, no_answer=NO_ANSWER),
)
