"""Settings of the controller itself, the same for all rollouts; the settings module of the control plane fills them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Durations in seconds.

    turn_s:          one turn of the loop, and so one tick of evidence and one heartbeat of the lease (1)
    lease_ttl_s:     how long published weights live without renewal; must be the data plane's own value (30)
    lease_timeout_s: longest wait for the data plane to acknowledge a lease (5)
    read_timeout_s:  longest wait for evidence (3)
    ready_timeout_s: longest wait for an answer whether a version is ready (5)
    unready_polls:   answers in a row that make a candidate count as not ready (3: a busy server is not a dead one)
    """

    turn_s: float = 1.0
    lease_ttl_s: float = 30.0
    lease_timeout_s: float = 5.0
    read_timeout_s: float = 3.0
    ready_timeout_s: float = 5.0
    unready_polls: int = 3
