"""What a person writes to say how a rollout is to run: YAML -> checked -> `RolloutSpec`.

Used by the CLI and the management API. Every mistake becomes a `Problem` that names the field's path, its line, what
was expected and what came; all of them are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from rollout.freeze import FreezeWindow
from rollout.judge.settings import DriftAction
from rollout.machine import DeadlineAction
from rollout.ports import FULL_WEIGHT
from rollout.spec import FixedMargins, OnNewVersion, OnUndecidable, RolloutSpec
from rollout.spec_parts import Gate, GoldenSpec, Occasion, PrometheusSpec, QueryPair, ShadowSpec, Webhook
from rollout.spec_values import (
    Accuracy,
    Address,
    Count,
    Days,
    Disagreement,
    Duration,
    Flag,
    Hours,
    Metrics,
    Occasions,
    Percent,
    PositiveDuration,
    PositivePercent,
    Ratio,
    Share,
    Slower,
    Steps,
    Timezone,
    Tolerance,
    Words,
    nearest,
    one_of,
)
from rollout.yaml_lines import Document, YamlError, read


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` counts from 1; 0 when the text has no such place."""

    field: str
    line: int
    expected: str
    received: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.field}: expected {self.expected}, received {self.received}"


class SpecError(ValueError):
    """The rollout spec cannot be used; correct the fields named in `problems` and try again."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}, {problem}" for problem in self.problems))


def parse_spec(text: str, source: str = "rollout spec") -> RolloutSpec:
    """The spec written in YAML (or JSON); empty text is the default spec. Raises `SpecError`.

    `source` is the file's name, for the messages.
    """
    try:
        document = read(text)
    except YamlError as error:
        raise SpecError(source, [Problem("text", error.line, "readable YAML", str(error))]) from error
    return _check(document, source)


def spec_from_mapping(value: Mapping[str, Any], source: str = "rollout spec") -> RolloutSpec:
    """The spec as a request body gave it, in the same terms as the YAML file. Raises `SpecError`."""
    return _check(Document(dict(value)), source)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MarginsSection(_Section):
    """Fixed margins; what is left out keeps the judge's schedule."""

    errors: Share | None = None
    latency_p50: Slower | None = None
    latency_p99: Slower | None = None
    accuracy: Ratio | None = None
    reward: Ratio | None = None


class LimitsSection(_Section):
    """Absolute ceilings."""

    error_rate: Share | None = None
    latency_p99: PositiveDuration | None = None
    stable_error_rate: Share = 0.05


class ToleranceSection(_Section):
    """How much worse than stable is not harm yet. `share`: how far the odds of reaching the candidate may be off."""

    errors: Ratio = 1.3
    latency: Slower = 0.05
    share: Share = 0.25


class QualitySection(_Section):
    """Labels and rewards. `floor`: a wrong-answer margin is never finer than this share."""

    tolerance: Ratio = 1.05
    floor: Share = 0.005


class WarmupSection(_Section):
    start: Duration = 180.0
    step: Duration = 90.0


class ShadowSection(_Section):
    """Copies of live requests that both versions answer, before any user is exposed. Defaults: `ShadowSpec`."""

    share: PositivePercent = 1000
    requests: Count = 500
    max_disagreement: Disagreement = None
    tolerance: Tolerance = 0.01

    def to_spec(self) -> ShadowSpec:
        return ShadowSpec(self.share, self.requests, self.max_disagreement, self.tolerance)


class GoldenSection(_Section):
    """`file`: labelled instances, or the digest under which they were uploaded."""

    file: Words
    min_accuracy: Accuracy | None = None
    max_drop: Share | None = None

    def to_spec(self) -> GoldenSpec:
        return GoldenSpec(self.file, self.min_accuracy, self.max_drop)


class QueryPairSection(_Section):
    """PromQL for each version."""

    stable: Words
    candidate: Words

    def to_spec(self) -> QueryPair:
        return QueryPair(self.stable, self.candidate)


class QueriesSection(_Section):
    """Growing counters, one number per query. `labelled` and `wrong` go together."""

    requests: QueryPairSection
    errors: QueryPairSection
    labelled: QueryPairSection | None = None
    wrong: QueryPairSection | None = None
    age: Words | None = None

    @field_validator("wrong", mode="after")
    @classmethod
    def _goes_with_labelled(cls, value: QueryPairSection | None, others: ValidationInfo) -> QueryPairSection | None:
        if others.data.get("labelled") is None and value is not None:
            raise ValueError("`labelled` beside it: how many were wrong says nothing without how many there were")
        return value


class PrometheusSection(_Section):
    url: Address
    queries: QueriesSection
    max_age: PositiveDuration = 60.0

    def to_spec(self) -> PrometheusSpec:
        labelled, wrong = (
            None if pair is None else pair.to_spec() for pair in (self.queries.labelled, self.queries.wrong)
        )
        return PrometheusSpec(
            url=self.url,
            requests=self.queries.requests.to_spec(),
            errors=self.queries.errors.to_spec(),
            labelled=labelled,
            wrong=wrong,
            age=self.queries.age,
            max_age_s=self.max_age,
        )


class FreezeSection(_Section):
    days: Days = frozenset(range(7))
    hours: Hours = (0, 24 * 60)
    timezone: Timezone = "UTC"

    def to_spec(self) -> FreezeWindow:
        return FreezeWindow(days=self.days, start=self.hours[0], end=self.hours[1], timezone=self.timezone)


class WebhookSection(_Section):
    """`events`: the occasions it is told of; all when left out."""

    url: Address
    events: Occasions = frozenset(Occasion)

    def to_spec(self) -> Webhook:
        return Webhook(self.url, self.events)


class DeadlineSection(_Section):
    after: PositiveDuration = 7200.0
    action: Annotated[DeadlineAction, one_of(*DeadlineAction)] = DeadlineAction.HOLD


class SpecFile(_Section):
    """The file as a whole. Defaults are those of `RolloutSpec`."""

    steps: Steps = (1000, 3000, FULL_WEIGHT)
    min_step: Duration = 90.0
    min_bake: Duration | None = None
    holdback: Percent = 500
    alpha: Share = 0.01
    beta: Share = 0.02
    guardrail: Flag = True
    calibration: Flag = True
    margins: MarginsSection = MarginsSection()
    limits: LimitsSection = LimitsSection()
    tolerance: ToleranceSection = ToleranceSection()
    quality: QualitySection = QualitySection()
    warmup: WarmupSection = WarmupSection()
    deadline: DeadlineSection = DeadlineSection()
    drift: Annotated[DriftAction, one_of(*DriftAction)] = DriftAction.HOLD
    shadow: ShadowSection | None = None
    golden: GoldenSection | None = None
    prometheus: PrometheusSection | None = None
    freeze: tuple[FreezeSection, ...] = ()
    notify: tuple[WebhookSection, ...] = ()
    required: Metrics = frozenset()
    rollback_window: Duration = 3600.0
    unready_grace: Duration = 30.0
    on_new_version: Annotated[OnNewVersion, one_of(*OnNewVersion)] = OnNewVersion.QUEUE
    on_undecidable: Annotated[OnUndecidable, one_of(*OnUndecidable)] = OnUndecidable.WARN

    @property
    def weights_bp(self) -> tuple[int, ...]:
        return tuple(step for step in self.steps if not isinstance(step, Gate))

    @model_validator(mode="after")
    def _holdback_leaves_room(self) -> Self:
        before = self.weights_bp[-2] if len(self.weights_bp) > 1 else 0
        if self.weights_bp[-1] - self.holdback <= before:
            room = (FULL_WEIGHT - before) / 100
            raise ValueError(f"a holdback below {room:g}, for the last step to be above the one before")
        return self

    def to_spec(self) -> RolloutSpec:
        return RolloutSpec(
            steps_bp=self.weights_bp,
            gates=tuple(gate for gate in self.steps if isinstance(gate, Gate)),
            holdback_bp=self.holdback,
            min_step_s=self.min_step,
            min_bake_s=self.min_bake,
            deadline_s=self.deadline.after,
            on_deadline=self.deadline.action,
            rollback_window_s=self.rollback_window,
            on_new_version=self.on_new_version,
            on_undecidable=self.on_undecidable,
            unready_grace_s=self.unready_grace,
            freeze=tuple(window.to_spec() for window in self.freeze),
            shadow=None if self.shadow is None else self.shadow.to_spec(),
            golden=None if self.golden is None else self.golden.to_spec(),
            prometheus=None if self.prometheus is None else self.prometheus.to_spec(),
            drift=self.drift,
            notify=tuple(webhook.to_spec() for webhook in self.notify),
            alpha=self.alpha,
            beta=self.beta,
            guardrail=self.guardrail,
            calibration=self.calibration,
            margins=FixedMargins(**self.margins.model_dump()),
            max_error_share=self.limits.error_rate,
            max_p99_s=self.limits.latency_p99,
            stable_error_limit=self.limits.stable_error_rate,
            error_tolerance=self.tolerance.errors,
            latency_tolerance=self.tolerance.latency,
            share_tolerance=self.tolerance.share,
            accuracy_tolerance=self.quality.tolerance,
            quality_floor=self.quality.floor,
            warm_up_start_s=self.warmup.start,
            warm_up_step_s=self.warmup.step,
            required=self.required,
        )


def _check(document: Document, source: str) -> RolloutSpec:
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise SpecError(source, [Problem("spec", 1, "settings such as `steps: [10, 30, 100]`", _shown(value))])
    try:
        return SpecFile.model_validate(value).to_spec()
    except ValidationError as error:
        problems = [_problem(detail, document) for detail in error.errors()]
        raise SpecError(source, sorted(problems, key=lambda problem: problem.line)) from error


def _problem(detail: ErrorDetails, document: Document) -> Problem:
    path = detail["loc"] or ("holdback",)
    field = ".".join(str(part) for part in path)
    line = document.line_of(path)
    match detail["type"]:
        case "extra_forbidden":
            known = list(_section_at(path[:-1]).model_fields)
            return Problem(field, line, f"one of {', '.join(known)}{nearest(str(path[-1]), known)}", "this key")
        case "model_type" | "model_attributes_type":
            known = list(_section_at(path).model_fields)
            return Problem(field, line, f"settings under it: {', '.join(known)}", _shown(detail["input"]))
        case "missing":
            needed = [name for name, known in _section_at(path[:-1]).model_fields.items() if known.is_required()]
            return Problem(field, line, f"a value: {', '.join(needed)} cannot be left out", "nothing")
        case "tuple_type":
            return Problem(field, line, "a list", _shown(detail["input"]))
        case "value_error" if not detail["loc"]:
            received = document.value.get("holdback", SpecFile.model_fields["holdback"].default / 100)
            return Problem(field, line, str(detail["ctx"]["error"]), _shown(received))
        case "value_error":
            return Problem(field, line, str(detail["ctx"]["error"]), _shown(detail["input"]))
        case _:
            return Problem(field, line, detail["msg"], _shown(detail["input"]))


def _section_at(path: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = SpecFile
    for part in path:
        if isinstance(part, str):
            inner = section_in(section.model_fields[part].annotation)
            assert inner is not None
            section = inner
    return section


def section_in(annotation: object) -> type[BaseModel] | None:
    """The section that a field holds, by itself, perhaps, or in a list; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((section for part in get_args(annotation) if (section := section_in(part)) is not None), None)


def _shown(value: object) -> str:
    """The value as it was written, cut short."""
    text = "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
