"""Studies: expansion into jobs, what should run now, the steps that submit it, and the report.

`expansion`: the jobs of a study. `situation` and `state`: what follows from the jobs that exist. `stepping`: one step.
`requests`: actions of users. `hub_pins`: commits of models. `advancing`: the loop of a service process.
"""
