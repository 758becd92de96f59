"""Rows in the public shape of each layout of datasets, with what a reader must find in them."""

import base64
import json
from dataclasses import dataclass
from typing import Any

REQUEST = "Answer with the letter of the right choice."
CHOICES = f"\nChoices:\n(A) 3\n(B) 4\n{REQUEST}"
EXPERT = "<think>1+2=3.</think>\n<answer>3</answer>"
ASK, TELL = {"role": "user", "content": "<image>Sum?"}, {"role": "assistant", "content": EXPERT}


@dataclass(frozen=True)
class Layout:
    """A row with one image, and its example."""

    name: str  # of its format
    row: dict[str, Any]
    question: str = "Sum?"
    answer: str = "3"
    expert: str | None = None
    data_source: str | None = None
    unused: tuple[str, ...] = ()
    file: str = "rows.parquet"


def layouts(image: bytes) -> dict[str, Layout]:
    """Return all layouts, whose rows hold `image`, by a name for tests."""
    text, stored = base64.b64encode(image).decode(), {"bytes": image, "path": "a.png"}
    return {
        **_plain(text),
        **_verl(text, stored),
        **_chats(text),
        **_trl(stored),
        **_multiple_choice(stored),
        **_geometry(text, stored),
        **_other_benchmarks(text, stored),
        **_with_solution(text, stored),
    }


def _plain(text: str) -> dict[str, Layout]:
    row = {"question": "Sum?", "answer": 3, "image": text, "expert": EXPERT}
    options = {"question": "Sum?", "choices": ["3", "4"], "answer": 0, "image": text}
    thought = {"question": "Sum?", "answer": "3", "reasoning_content": "1+2=3.", "images": json.dumps([text])}
    return {
        "plain": Layout("plain", row, expert=EXPERT),
        "plain, options": Layout("plain", options, f"Sum?{CHOICES}", "A"),
        "plain, reasoning": Layout("plain", thought, expert=EXPERT),
    }


def _verl(text: str, stored: dict[str, Any]) -> dict[str, Layout]:
    row = {
        "data_source": "made",
        "prompt": [ASK],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"index": 0},
    }
    found: dict[str, Any] = {"question": "<image>Sum?", "data_source": "made", "unused": ("ability",)}
    address = {"image": f"data:image/png;base64,{text}"}
    return {
        "verl": Layout("verl", {**row, "images": [stored], "solution": [EXPERT]}, expert=EXPERT, **found),
        "verl, image": Layout("verl", {**row, "image": address}, **found),
        "LUFFY": Layout("luffy", {**row, "images": [stored], "target": [TELL]}, expert=EXPERT, **found),
    }


def _chats(text: str) -> dict[str, Layout]:
    shown = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}},
        {"type": "text", "text": "Sum?"},
    ]
    thought = {"role": "assistant", "content": "<answer>3</answer>", "reasoning_content": "1+2=3."}
    openai = {"messages": [{"role": "user", "content": shown}, thought]}
    swift = {"messages": [ASK, TELL], "images": [text], "solution": "3"}
    query = {"query": "<image>Sum?", "response": EXPERT, "images": [text]}
    thread = [{"from": "human", "value": "<image>Sum?"}, {"from": "gpt", "value": EXPERT}]
    llava = {"id": "1", "image": text, "conversations": thread}
    alpaca = {"instruction": "<image>Sum?", "input": "", "output": EXPERT, "images": [text]}
    return {
        "OpenAI": Layout("openai", openai, "<image>Sum?", expert=EXPERT, file="rows.jsonl"),
        "ms-swift": Layout("ms-swift", swift, "<image>Sum?", expert=EXPERT),
        "ms-swift, query": Layout("ms-swift", query, "<image>Sum?", expert=EXPERT),
        "ShareGPT": Layout("sharegpt", llava, "<image>Sum?", expert=EXPERT, unused=("id",)),
        "Alpaca": Layout("sharegpt", alpaca, "<image>Sum?", expert=EXPERT),
    }


def _trl(stored: dict[str, Any]) -> dict[str, Layout]:
    bare = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Sum?"}]}]
    completed = {"prompt": [ASK], "completion": [TELL], "images": [stored]}
    return {
        "TRL, parts": Layout("trl", {"prompt": bare, "image": stored, "solution": "$3$"}, "<image>Sum?", "$3$"),
        "TRL, text": Layout("trl", {"prompt": "Sum?", "images": [stored], "ground_truth": 3}),
        "TRL, completion": Layout("trl", completed, "<image>Sum?", expert=EXPERT),
    }


def _multiple_choice(stored: dict[str, Any]) -> dict[str, Layout]:
    science = {
        "image": stored,
        "question": "Sum?",
        "choices": ["3", "4"],
        "answer": 0,
        "hint": "Look.",
        "task": "closed",
        "grade": "grade2",
        "subject": "natural science",
        "topic": "maths",
        "lecture": "Add.",
        "solution": "1+2=3.",
    }
    explained = "<think>Add.\n1+2=3.</think>\n<answer>A</answer>"
    left_out = ("grade", "subject", "task")
    mmmu = {
        "id": "v_1",
        "question": "Sum of <image 1>?",
        "options": "['3', '4']",
        "explanation": "",
        "image_1": stored,
        "image_2": None,
        "answer": "A",
        "question_type": "multiple-choice",
        "subfield": "Algebra",
    }
    vista = {
        "pid": "1",
        "question": "Sum?",
        "image": "images/1.jpg",
        "decoded_image": stored,
        "choices": ["3", "4"],
        "unit": None,
        "precision": None,
        "answer": "3",
        "question_type": "multi_choice",
        "answer_type": "text",
        "metadata": {"task": "figure qa"},
        "query": "Hint: ...",
    }
    asked = f"Sum?{CHOICES}"
    return {
        "ScienceQA": Layout("scienceqa", science, f"Look.\n{asked}", "A", explained, "maths", left_out),
        "MMMU": Layout("mmmu", mmmu, f"Sum of <image>?{CHOICES}", "A", None, "Algebra", ("question_type",)),
        "MathVista": Layout("mathvista", vista, asked, "A", None, "figure qa", ("answer_type", "image", "query")),
    }


def _geometry(text: str, stored: dict[str, Any]) -> dict[str, Layout]:
    we_math = {
        "ID": "1",
        "split": "testmini",
        "knowledge concept": "Sums",
        "question": "Sum?",
        "option": "A. 3; B. 4;",
        "answer": "A",
        "image_path": stored,
        "key": "one_step",
    }
    inter_gps = {"problem_text": "Sum?", "choices": [3, 4], "answer": "A", "image": text, "problem_type_goal": ["Sum"]}
    asked = f"Sum?{CHOICES}"
    return {
        "We-Math": Layout("we-math", we_math, asked, "A", None, "Sums", ("key", "split")),
        "Geometry3K": Layout("geometry3k", inter_gps, asked, "A", None, "Sum"),
    }


def _other_benchmarks(text: str, stored: dict[str, Any]) -> dict[str, Layout]:
    easyr1 = {"images": [stored], "problem": "<image>Sum?", "answer": "3"}
    virl = {
        "question": "<image>Sum?",
        "answer": "\\boxed{3}",
        "PassRate_7BBase": 0.5,
        "category": "Math",
        "source": "made",
        "qid": "a-1",
        "image": [text],
    }
    mmk12 = {"id": "7", "question": "Sum?", "answer": "3", "subject": "math", "image": stored}
    chart = {"image": stored, "query": "Sum?", "label": ["3"], "human_or_machine": 0}
    typed = {"type": "human_test", "question": "Sum?", "answer": "3", "image": stored}
    return {
        "EasyR1": Layout("easyr1", easyr1, "<image>Sum?"),
        "ViRL39K": Layout("virl39k", virl, "<image>Sum?", "3", None, "Math", ("PassRate_7BBase", "source")),
        "MMK12": Layout("mmk12", mmk12, data_source="math"),
        "ChartQA": Layout("chartqa", chart, data_source="human"),
        "ChartQA, type": Layout("chartqa", typed, data_source="human_test"),
    }


def _with_solution(text: str, stored: dict[str, Any]) -> dict[str, Layout]:
    originals = {"original_question": "Sum?", "original_answer": "3"}
    open_r1 = {"image": stored, "problem": "Sum?", "solution": EXPERT, **originals}
    boxed = {"problem": "Sum?", "solution": "So \\boxed{3}.", "answer": "3", "image": text}
    steps = {"question": "Sum?", "answer": "1+2=<<1+2=3>>3\n#### 3", "image": text}
    clevr = {"image": stored, "problem": "Sum?", "solution": "<answer> 3 </answer>"}
    return {
        "Multimodal-Open-R1": Layout("open-r1", open_r1, expert=EXPERT, unused=tuple(sorted(originals))),
        "OpenR1-Math": Layout("open-r1", boxed, expert="So \\boxed{3}."),
        "CLEVR": Layout("clevr", clevr),
        "GSM8K": Layout("gsm8k", steps, expert="<think>1+2=3</think>\n<answer>3</answer>"),
    }
