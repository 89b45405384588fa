"""Where Envoy finds the mirror evaluator, and the largest copy that it is sent."""

from __future__ import annotations

CLUSTER = "penstock-mirror"
"""Name of the evaluator's cluster in Envoy."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest copy of a request; a larger one is not compared, and counted as dropped."""
