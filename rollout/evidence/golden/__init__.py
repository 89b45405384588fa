"""A golden set: a labelled file on which a loaded candidate is evaluated, beside stable, before any traffic.

`file` reads it, `batches` makes requests of it, `evaluate` asks both versions, `score` counts and decides, `picture`
draws. `gateway.golden` keeps the files and the results.
"""
