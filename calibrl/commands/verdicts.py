"""Commands of verdicts: judge stored completions, and see the error rates of the verifiers."""

from enum import StrEnum
from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import AsJson, JobArgument, StackFolder, print_json, print_rich
from calibrl.commands.evaluations import EVALUATIONS
from calibrl.views import verdicts as pages

app = typer.Typer()


class Answer(StrEnum):
    """Answers of a person about a completion."""

    RIGHT = "right"
    WRONG = "wrong"
    SKIP = "skip"


@app.command(rich_help_panel=EVALUATIONS)
def trust(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show how often the verifiers of a job err, by the verdicts of people, and the accuracy that follows."""
    with Client(data_dir=data) as client:
        found = client.trust(client.find_job(job).id)
    print_json(found) if as_json else print_rich(pages.trust_page(found))


@app.command(rich_help_panel=EVALUATIONS)
def judge(
    job: JobArgument,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Number of completions.")] = 10,
    data: StackFolder = None,
) -> None:
    """Judge random stored completions of a job: right, wrong or skip. Rewards do not change."""
    with Client(data_dir=data) as client:
        id = client.find_job(job).id
        for _ in range(count):
            one = client.next_to_judge(id)
            print_rich(pages.completion_page(one))
            answer = typer.prompt("\nIs it right?", type=Answer, default=Answer.SKIP)
            if answer is not Answer.SKIP:
                right = answer is Answer.RIGHT
                client.put_verdict(id, one.sample_id, one.completion, right=right, picked="random")
        print_rich(pages.trust_page(client.trust(id)))
