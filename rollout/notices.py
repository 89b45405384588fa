"""What is said to those who want to hear of a rollout: which change is an occasion, and the words for it.

Pure. `rollout.notifier` sends them. The payload is what Slack's incoming webhooks take, and Mattermost's and others
that took it over: `text` for people, `attachments` with fields; `penstock` holds the same for programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollout.machine import Progress, State
from rollout.report import RolloutStatus
from rollout.spec_parts import Occasion

_COLOURS = {
    Occasion.PROMOTED: "good",
    Occasion.WAITING: "warning",
    Occasion.PAUSED: "warning",
    Occasion.OVERDUE: "warning",
    Occasion.ABORTED: "warning",
    Occasion.ROLLING_BACK: "danger",
    Occasion.ROLLED_BACK: "danger",
    Occasion.FAILED: "danger",
}
_ENDS = {
    State.PROMOTED: Occasion.PROMOTED,
    State.ROLLED_BACK: Occasion.ROLLED_BACK,
    State.ABORTED: Occasion.ABORTED,
    State.FAILED: Occasion.FAILED,
    State.PAUSED: Occasion.PAUSED,
    State.ROLLING_BACK: Occasion.ROLLING_BACK,
}
_MOVES = frozenset({State.SHADOW, State.STEP, State.BAKING})


def occasion_of(before: Progress, after: Progress, *, by_hand: bool) -> Occasion | None:
    """What the change is worth telling as; None when it is not. `by_hand`: the gate it stands at has no time."""
    if after.overdue and not before.overdue:
        return Occasion.OVERDUE
    if (after.state, after.step) == (before.state, before.step):
        return None
    if before.state is State.PENDING and after.state is State.LOADING:
        return Occasion.STARTED
    if after.state is State.GATE:
        return Occasion.WAITING if by_hand else None
    if after.state in _MOVES and before.state is not State.PAUSED:
        return Occasion.ADVANCED
    return _ENDS.get(after.state)


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to say, to whoever listens."""

    occasion: Occasion
    text: str
    fields: Mapping[str, str]

    def payload(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "attachments": [
                {
                    "fallback": self.text,
                    "color": _COLOURS.get(self.occasion, "#439FE0"),
                    "fields": [{"title": title, "value": value, "short": True} for title, value in self.fields.items()],
                }
            ],
            "penstock": {"occasion": self.occasion.value, **self.fields},
        }


def notice(occasion: Occasion, status: RolloutStatus) -> Notice:
    what = f"{status.model}: version {status.candidate} {_said(occasion, status)}"
    why = status.waiting_for if occasion is Occasion.WAITING else status.reason
    return Notice(
        occasion=occasion,
        text=f"{what}. {why[:1].upper()}{why[1:]}" if why else f"{what}.",
        fields={
            "model": status.model,
            "rollout": str(status.rollout_id),
            "stable": str(status.stable),
            "candidate": str(status.candidate),
            "state": status.state.value,
            "step": f"{status.step} of {status.steps}",
            "weight": f"{status.weight_bp / 100:g} %",
            "reason": why,
        },
    )


def _said(occasion: Occasion, status: RolloutStatus) -> str:
    match occasion:
        case Occasion.STARTED:
            return f"is being rolled out, from version {status.stable}"
        case Occasion.ADVANCED if status.state is State.SHADOW:
            return f"answers copies of {status.mirror_bp / 100:g} % of requests, unseen"
        case Occasion.ADVANCED:
            return f"goes to {status.granted_bp / 100:g} % of traffic"
        case Occasion.WAITING:
            return "waits at a gate"
        case Occasion.PAUSED:
            return f"is paused at {status.weight_bp / 100:g} %"
        case Occasion.OVERDUE:
            return "has been where it is for longer than its deadline"
        case Occasion.ROLLING_BACK:
            return "is taken out of traffic"
        case Occasion.PROMOTED:
            return "is stable now"
        case Occasion.ROLLED_BACK:
            return "was rolled back"
        case Occasion.ABORTED:
            return "was aborted"
        case Occasion.FAILED:
            return "could not be rolled out"
