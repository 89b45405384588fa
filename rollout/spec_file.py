"""What a person writes to say how a rollout is to run: YAML -> checked -> `RolloutSpec`.

Used by the CLI and the management API. Every mistake becomes a `Problem` that names the field's path, its line, what
was expected and what came; all of them are reported at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from rollout.judge.settings import Metric
from rollout.machine import DeadlineAction
from rollout.ports import FULL_WEIGHT
from rollout.spec import FixedMargins, OnNewVersion, RolloutSpec
from rollout.yaml_lines import Document, YamlError, read

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


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


def _number(value: object) -> float | None:
    """A real number, and not a bool or NaN dressed as one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _duration(value: object) -> float:
    number = _number(value)
    if number is None and isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        number = float(match[1]) * _UNIT_S[match[2]]
    if number is None or number < 0:
        raise ValueError('a duration such as "30s", "5m", "2h" or seconds')
    return number


def _positive_duration(value: object) -> float:
    number = _duration(value)
    if number == 0:
        raise ValueError('a duration above zero, such as "30s", "5m", "2h" or seconds')
    return number


def _percent_bp(value: object) -> int:
    """Percent (10, 2.5 or "2.5%") as basis points."""
    number = _number(value)
    if number is None and isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1])
    points = None if number is None else round(number * 100)
    if number is None or points is None or not 0 <= points <= FULL_WEIGHT or abs(points - number * 100) > 1e-6:
        raise ValueError("percent from 0 to 100, in steps of 0.01")
    return points


def _share(value: object) -> float:
    number = _number(value)
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1]) / 100.0
    if number is None or not 0 < number < 1:
        raise ValueError('a share between 0 and 1, such as 0.01 or "1%"')
    return number


def _slower(value: object) -> float:
    if value == "none":
        return 0.0
    number = _number(value)
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1]) / 100.0
    if number is None or not 0 < number <= 10:
        raise ValueError('how much slower, such as "10%" or 0.1 (at most 10), or none')
    return number


def _ratio(value: object) -> float:
    number = _number(value)
    if number is None or not 1 < number <= 1000:
        raise ValueError("a ratio above 1, such as 1.2 (a fifth more)")
    return number


def _flag(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError("true or false")


def _steps(value: object) -> tuple[int, ...]:
    shape = ValueError("a list of percentages that rise to 100, such as [10, 30, 100]")
    if not isinstance(value, list) or not value:
        raise shape
    steps = tuple(_percent_bp(item) for item in value)
    if steps[0] == 0:
        raise ValueError("a first step above 0")
    for before, after in pairwise(steps):
        if after <= before:
            raise ValueError(f"steps that rise ({after / 100:g} follows {before / 100:g})")
    if steps[-1] != FULL_WEIGHT:
        raise ValueError(f"100 as the last step (it ends at {steps[-1] / 100:g})")
    return steps


def _one_of(*allowed: str) -> BeforeValidator:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}{_nearest(value, allowed)}")
        return value

    return BeforeValidator(check)


def _metrics(value: object) -> frozenset[Metric]:
    known = [metric.value for metric in Metric]
    if not isinstance(value, list) or any(item not in known for item in value):
        raise ValueError(f"a list out of {', '.join(known)}")
    return frozenset(Metric(item) for item in value)


Duration = Annotated[float, BeforeValidator(_duration)]
PositiveDuration = Annotated[float, BeforeValidator(_positive_duration)]
Percent = Annotated[int, BeforeValidator(_percent_bp)]
Share = Annotated[float, BeforeValidator(_share)]
Slower = Annotated[float, BeforeValidator(_slower)]
Ratio = Annotated[float, BeforeValidator(_ratio)]
Flag = Annotated[bool, BeforeValidator(_flag)]


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
    """How much worse than stable is not harm yet."""

    errors: Ratio = 1.3
    latency: Slower = 0.05


class QualitySection(_Section):
    """Labels and rewards. `floor`: a wrong-answer margin is never finer than this share."""

    tolerance: Ratio = 1.05
    floor: Share = 0.005


class WarmupSection(_Section):
    start: Duration = 180.0
    step: Duration = 120.0


class DeadlineSection(_Section):
    after: PositiveDuration = 7200.0
    action: Annotated[DeadlineAction, _one_of(*DeadlineAction)] = DeadlineAction.HOLD


class SpecFile(_Section):
    """The file as a whole. Defaults are those of `RolloutSpec`."""

    steps: Annotated[tuple[int, ...], BeforeValidator(_steps)] = (1000, 3000, FULL_WEIGHT)
    min_step: Duration = 90.0
    holdback: Percent = 500
    alpha: Share = 0.01
    beta: Share = 0.02
    guardrail: Flag = True
    margins: MarginsSection = MarginsSection()
    limits: LimitsSection = LimitsSection()
    tolerance: ToleranceSection = ToleranceSection()
    quality: QualitySection = QualitySection()
    warmup: WarmupSection = WarmupSection()
    deadline: DeadlineSection = DeadlineSection()
    required: Annotated[frozenset[Metric], BeforeValidator(_metrics)] = frozenset()
    rollback_window: Duration = 3600.0
    unready_grace: Duration = 30.0
    on_new_version: Annotated[OnNewVersion, _one_of(*OnNewVersion)] = OnNewVersion.QUEUE

    @model_validator(mode="after")
    def _holdback_leaves_room(self) -> Self:
        before = self.steps[-2] if len(self.steps) > 1 else 0
        if self.steps[-1] - self.holdback <= before:
            room = (FULL_WEIGHT - before) / 100
            raise ValueError(f"a holdback below {room:g}, for the last step to be above the one before")
        return self

    def to_spec(self) -> RolloutSpec:
        return RolloutSpec(
            steps_bp=self.steps,
            holdback_bp=self.holdback,
            min_step_s=self.min_step,
            deadline_s=self.deadline.after,
            on_deadline=self.deadline.action,
            rollback_window_s=self.rollback_window,
            on_new_version=self.on_new_version,
            unready_grace_s=self.unready_grace,
            alpha=self.alpha,
            beta=self.beta,
            guardrail=self.guardrail,
            margins=FixedMargins(**self.margins.model_dump()),
            max_error_share=self.limits.error_rate,
            max_p99_s=self.limits.latency_p99,
            stable_error_limit=self.limits.stable_error_rate,
            error_tolerance=self.tolerance.errors,
            latency_tolerance=self.tolerance.latency,
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
            return Problem(field, line, f"one of {', '.join(known)}{_nearest(str(path[-1]), known)}", "this key")
        case "model_type" | "model_attributes_type":
            known = list(_section_at(path).model_fields)
            return Problem(field, line, f"settings under it: {', '.join(known)}", _shown(detail["input"]))
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
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
    return section


def _nearest(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _shown(value: object) -> str:
    """The value as it was written, cut short."""
    text = "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
