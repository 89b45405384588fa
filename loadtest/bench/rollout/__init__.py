"""Simulated rollouts: seeded traffic with realistic noise, judged on virtual time, whole rollouts by the thousand.

`make bench-judge` writes docs/benchmarks/judge.md. Traffic knows nothing of judges, and rules (Penstock's, or another
system's) nothing of traffic: `simulate` runs one against the other, `store` keeps what came of it, `page` shows it.
"""
