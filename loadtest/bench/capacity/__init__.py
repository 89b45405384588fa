"""Capacity: how many cores of Envoy for a load, and how many Envoys for one control plane, from measured figures.

Run as `python -m loadtest.bench.capacity` (`make bench-capacity`); it writes docs/benchmarks/capacity.md. Parts:
`ladder` (sizes and batches, measured by the gateway bench), `fit` (cost per request as a formula), `connections` (what
a caller's connection costs), `fleet` and `envoys` (a control plane before simulated Envoys), `charts` and `report`.
"""
