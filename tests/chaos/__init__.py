"""The proof of the queue: faults in the middle of things, on the real stack, and no job lost, no step doubled.

    python -m tests.chaos [--seconds N] [--seed S] [--short]

A round puts one job into every state that a job can be in (`tableau`), hits one fault against some or all of them
(`faults`), drives every job to its end, and checks it against a run that nobody disturbed (`verify`). `cells` says
which faults and states go together; a cell that makes no sense has its reason there.
"""
