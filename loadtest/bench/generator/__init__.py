"""What the load generator can send at most, before servers that answer at once.

`__main__` starts the servers and a process per protocol (`send`), which sends as a load test in a closed loop does. Run
by `python -m loadtest.bench.generator`; docs/load-testing.md has its figures.
"""
