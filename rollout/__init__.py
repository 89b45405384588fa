"""Staged rollout: spec, state machine, judge, evidence, journal, controller.

Talks to the data plane and to inference servers through the Protocols of `rollout.ports` only, so that the whole
of it runs on virtual time.
"""
