"""How one rollout is to be run: the values the code reads.

What a person writes is `rollout.spec_file`, which ends in this. Read by `rollout.controller` (times, queueing), by
`rollout.machine` (weights, deadline action) and, as `JudgeSettings`, by the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from rollout.freeze import FreezeWindow
from rollout.judge.margins import Margins
from rollout.judge.settings import DriftAction, JudgeSettings, Metric
from rollout.machine import DeadlineAction, Plan
from rollout.ports import FULL_WEIGHT
from rollout.spec_parts import Gate, GoldenSpec, PrometheusSpec, ShadowSpec, Webhook


class OnNewVersion(StrEnum):
    """What a version that arrives during another version's rollout does."""

    QUEUE = "queue"
    REPLACE = "replace"
    REFUSE = "refuse"


class OnUndecidable(StrEnum):
    """What a forecast that a step cannot detect a regression of its own margin leads to."""

    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class FixedMargins:
    """An owner's own margins, in place of the judge's schedule that relaxes with time; None keeps the schedule.

    errors: share of requests (0.01 = one point); latency_p50, latency_p99: share of stable's latency (0.1 = 10 %
    slower; 0: not asked before a step is passed); accuracy, reward: ratio of wrong answers (lost reward) to stable's,
    above 1.
    """

    errors: float | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None
    accuracy: float | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """Settings of one rollout. Durations are seconds, `_bp` are basis points (100 = 1 %).

    steps_bp:          share of traffic per step, rising to all of it
    holdback_bp:       share left on stable while the last step is judged: without it an outage and a bad candidate
                       look alike
    gates:             where it waits for a word or a time between steps, by step
    min_step_s:        least time in a step
    min_bake_s:        the same for the last of several steps (None: as any other)
    deadline_s:        longest time in a step (or in loading) before `on_deadline`
    on_deadline:       hold (go on waiting, and say so), pause, or roll_back
    rollback_window_s: how long the old version stays loaded after promotion, so that undo loads nothing
    on_new_version:    queue: it waits its turn; replace: this rollout is aborted for it; refuse: it gets an error
    on_undecidable:    when a step could not be decided within its deadline at the traffic there is: warn, or refuse to
                       start
    unready_grace_s:   how long a candidate may be not ready (at weight 0) before it is rolled back
    freeze:            times in which nothing starts or advances; harm still rolls back
    shadow:            compare answers to copied requests before any user is exposed (None: no such step)
    golden:            evaluate the candidate on a labelled file before that (None: no)
    prometheus:        evidence that Prometheus has, beside Envoy's (None: none)
    drift:             what a shift in the distribution of predictions leads to
    notify:            who hears of it
    alpha, beta:       chance of rolling back a healthy version, of passing a step with harm at the margin
    calibration:       allow for the noise that the history of stable shows, beyond the tolerances
    guardrail, limits, tolerances, warm-up, quality_floor, required: see `JudgeSettings`
    """

    steps_bp: tuple[int, ...] = (1000, 3000, FULL_WEIGHT)
    gates: tuple[Gate, ...] = ()
    holdback_bp: int = 500
    min_step_s: float = 90.0
    min_bake_s: float | None = None
    deadline_s: float = 7200.0
    on_deadline: DeadlineAction = DeadlineAction.HOLD
    rollback_window_s: float = 3600.0
    on_new_version: OnNewVersion = OnNewVersion.QUEUE
    on_undecidable: OnUndecidable = OnUndecidable.WARN
    unready_grace_s: float = 30.0
    freeze: tuple[FreezeWindow, ...] = ()
    shadow: ShadowSpec | None = None
    golden: GoldenSpec | None = None
    prometheus: PrometheusSpec | None = None
    drift: DriftAction = DriftAction.HOLD
    notify: tuple[Webhook, ...] = ()
    alpha: float = 0.01
    beta: float = 0.02
    guardrail: bool = True
    margins: FixedMargins = field(default_factory=FixedMargins)
    max_error_share: float | None = None
    max_p99_s: float | None = None
    stable_error_limit: float = 0.05
    error_tolerance: float = 1.3
    latency_tolerance: float = 0.05
    calibration: bool = True
    share_tolerance: float = 0.25
    accuracy_tolerance: float = 1.05
    quality_floor: float = 0.005
    warm_up_start_s: float = 180.0
    warm_up_step_s: float = 90.0
    required: frozenset[Metric] = frozenset()

    @classmethod
    def default(cls) -> RolloutSpec:
        return cls()

    @property
    def weights_bp(self) -> tuple[int, ...]:
        """The weight of each step: the last one leaves the holdback on stable."""
        return (*self.steps_bp[:-1], self.steps_bp[-1] - self.holdback_bp)

    def plan(self) -> Plan:
        return Plan(self.weights_bp, self.on_deadline, shadow=self.shadow is not None, gates=self.gates)

    def judge_settings(self) -> JudgeSettings:
        shadow = self.shadow or ShadowSpec()
        margins = Margins().with_fixed(
            errors=self.margins.errors,
            p50=self.margins.latency_p50,
            p99=self.margins.latency_p99,
            wrong_ratio=self.margins.accuracy,
            reward_ratio=self.margins.reward,
        )
        return JudgeSettings(
            alpha=self.alpha,
            beta=self.beta,
            margins=margins,
            min_step_s=self.min_step_s,
            warm_up_start_s=self.warm_up_start_s,
            warm_up_step_s=self.warm_up_step_s,
            guardrail=self.guardrail,
            max_error_share=self.max_error_share,
            max_p99_us=None if self.max_p99_s is None else self.max_p99_s * 1e6,
            stable_error_limit=self.stable_error_limit,
            error_tolerance=self.error_tolerance,
            latency_tolerance=self.latency_tolerance,
            wrong_tolerance=self.accuracy_tolerance,
            wrong_floor=self.quality_floor,
            required=self.required,
            drift=self.drift,
            share_tolerance=self.share_tolerance,
            max_disagreement=shadow.max_disagreement,
            shadow_pairs=shadow.requests,
        )

    def to_json(self) -> dict[str, Any]:
        value = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **value,
            "steps_bp": list(self.steps_bp),
            "gates": [asdict(gate) for gate in self.gates],
            "on_deadline": self.on_deadline.value,
            "on_new_version": self.on_new_version.value,
            "on_undecidable": self.on_undecidable.value,
            "freeze": [window.to_json() for window in self.freeze],
            "shadow": None if self.shadow is None else asdict(self.shadow),
            "golden": None if self.golden is None else asdict(self.golden),
            "prometheus": None if self.prometheus is None else self.prometheus.to_json(),
            "drift": self.drift.value,
            "notify": [webhook.to_json() for webhook in self.notify],
            "margins": asdict(self.margins),
            "required": sorted(metric.value for metric in self.required),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RolloutSpec:
        """What `to_json` gave. Fields that an older journal does not know have their defaults."""
        return cls(**{name: _READ.get(name, _same)(part) for name, part in value.items()})


def _same(value: Any) -> Any:
    return value


def _perhaps(read: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: None if value is None else read(value)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "steps_bp": tuple,
    "gates": lambda gates: tuple(Gate(**gate) for gate in gates),
    "on_deadline": DeadlineAction,
    "on_new_version": OnNewVersion,
    "on_undecidable": OnUndecidable,
    "freeze": lambda windows: tuple(FreezeWindow.from_json(window) for window in windows),
    "shadow": _perhaps(lambda value: ShadowSpec(**value)),
    "golden": _perhaps(lambda value: GoldenSpec(**value)),
    "prometheus": _perhaps(PrometheusSpec.from_json),
    "drift": DriftAction,
    "notify": lambda webhooks: tuple(Webhook.from_json(webhook) for webhook in webhooks),
    "margins": lambda margins: FixedMargins(**margins),
    "required": lambda names: frozenset(Metric(name) for name in names),
}
"""How each field that is no plain number or flag is read back."""
