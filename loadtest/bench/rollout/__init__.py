"""Simulated rollouts: seeded traffic with realistic noise, judged on virtual time, whole rollouts by the thousand.

`python -m loadtest.bench.rollout --runs 200 --cells quick` prints a table. Traffic knows nothing of judges, and rules
(Penstock's judge, or another system's) nothing of traffic: `simulate` runs one against the other.
"""
