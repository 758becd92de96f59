"""Proof of the queue: faults at any moment on the real stack, with no lost job and no repeated step.

    python -m tests.chaos [--seconds N] [--seed S] [--short]

A round puts one job into every possible state (`held_jobs`), applies one fault to some or all of them (`faults`), runs
every job to its end, and compares it with a run without faults (`verify`). `cells` lists the pairs of fault and state
that make sense; each excluded pair has its reason there.
"""
