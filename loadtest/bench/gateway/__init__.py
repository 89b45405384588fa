"""What the gateway costs: CPU of Envoy per request, through Penstock's own configuration and through a bare Envoy.

Run as `python -m loadtest.bench.gateway` (`make bench-gateway`); the result is docs/benchmarks/gateway.md. The parts:
`calls` (what is sent and what must come back), `stub` (the inference server), `envoys` (the Envoys compared), `load`
(h2load), `cpu` (what a process used), `cases` (what is measured against what, and the targets), `report` (the page).
"""
