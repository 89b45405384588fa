"""Mutated bodies against the scripts: `make fuzz`, and a small share of it in every run of the tests.

`targets` says what is fuzzed and what must hold, `oracles` what json, numpy and google.protobuf make of a body.
`bodies` makes and mutates them, `run` checks them in processes of their own, `shrink` makes a failing one small, and
`through_envoy` sends some through the real Envoy.
"""
