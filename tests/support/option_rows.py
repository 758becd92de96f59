"""A row of each format with options in its columns, and the question that the model sees."""

from typing import Any

OPTIONS = {"options": ["3", "4"]}
CHOICES = {"choices": ["3", "4"]}
USER = {"role": "user", "content": "Sum?"}
LISTED = "Sum?\nChoices:\n(A) 3\n(B) 4\n"
REQUEST = "Answer with the letter of the right choice."
# By format: a row whose right option is 4.
ROWS: dict[str, dict[str, Any]] = {
    "plain": {"question": "Sum?", "answer": "4", **OPTIONS},
    "easyr1": {"problem": "Sum?", "answer": "4", **OPTIONS},
    "verl": {"prompt": [USER], "reward_model": {"ground_truth": "4"}, **OPTIONS},
    "luffy": {"prompt": [USER], "reward_model": {"ground_truth": 1}, "target": "B", **CHOICES},
    "trl": {"prompt": "Sum?", "solution": "\\boxed{4}", **CHOICES},
    "open-r1": {"problem": "Sum?", "solution": "1+3=4, so <answer>4</answer>", "answer": "B", **OPTIONS},
    "clevr": {"problem": "Sum?", "solution": "<answer> 4 </answer>", **OPTIONS},
    "openai": {"messages": [USER], "reference_answer": "4", **OPTIONS},
    "ms-swift": {"query": "Sum?", "response": "It is 4.", "answer": "4", **OPTIONS},
    "sharegpt": {"instruction": "Sum?", "output": "It is 4.", "ground_truth": "B", **OPTIONS},
    "gsm8k": {"question": "Sum?", "answer": "1+3=4\n#### 4", **OPTIONS},
    "chartqa": {"query": "Sum?", "label": ["4"], **OPTIONS},
    "virl39k": {"question": "Sum?", "answer": "\\boxed{B}", "qid": "1", **OPTIONS},
    "mmk12": {"question": "Sum?", "answer": "B", "subject": "maths", "image": None, **OPTIONS},
    "mmmu": {"question": "Sum?", "answer": "B", "subfield": "maths", "options": "['3', '4']"},
    "scienceqa": {"question": "Sum?", "answer": 1, "lecture": "Add.", **CHOICES},
    "mathvista": {"question": "Sum?", "answer": "4", "question_type": "multi_choice", **CHOICES},
    "we-math": {"question": "Sum?", "answer": "B", "option": "A. 3; B. 4;"},
    "geometry3k": {"problem_text": "Sum?", "answer": "B", **CHOICES},
}
