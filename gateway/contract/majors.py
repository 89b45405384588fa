"""Which API major a new version joins, as a pure function of its signature and the locks there are.

Called by the deploy use case and, with the locks of a file, by `penstock api check`. The newest lock is asked first:
a version belongs to the newest API whose callers it does not break. What no lock takes needs a new major, and a person
has to ask for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.signature import Signature
from gateway.contract.compare import Outcome, Verdict, compare
from gateway.contract.derive import derive
from gateway.contract.model import Contract


class BreakingChange(Exception):
    """The version would break the model's callers. `verdicts` are those of the locks that were asked, newest first."""

    def __init__(self, verdicts: Sequence[Verdict], tried: Sequence[int]) -> None:
        self.verdicts = tuple(verdicts)
        self.verdict = self.verdicts[0]
        others = (
            f"API major {major} would break too ({len(verdict.breaking)} "
            f"{'difference' if len(verdict.breaking) == 1 else 'differences'})."
            for verdict, major in list(zip(verdicts, tried, strict=True))[1:]
        )
        super().__init__("\n".join([str(self.verdict), *others]))


class BadApiMajor(Exception):
    """The major that was asked for is neither there nor the next one."""

    def __init__(self, model: str, wanted: int, majors: Sequence[int]) -> None:
        there = f"{model} has API major {', '.join(map(str, majors))}" if majors else f"{model} has no API yet"
        new = max(majors, default=0) + 1
        super().__init__(f"API major {wanted} is not possible: {there}, and the next new one is {new}")


@dataclass(frozen=True, slots=True)
class Joined:
    """The contract of the version in the API it joins. `note` says which that is and why, when it is worth a word."""

    contract: Contract
    note: str = ""


def join(
    model: str, signature: Signature, locks: Sequence[Contract], *, major: int | None = None, new_major: bool = False
) -> Joined:
    """The contract of a new version. `locks`: those of all majors.

    `major` says which API it is meant for (an existing one, or the next); `new_major` opens the next one if the
    version breaks every lock there is. Raises BadModelName, BreakingChange, BadApiMajor.
    """
    newest_first = sorted(locks, key=lambda lock: lock.major, reverse=True)
    majors = [lock.major for lock in newest_first]
    following = max(majors, default=0) + 1
    if major is not None:
        if major == following:
            return Joined(derive(model, signature, major=major), _opens(model, major, majors))
        newest_first = [lock for lock in newest_first if lock.major == major]
        if not newest_first:
            raise BadApiMajor(model, major, sorted(majors))
    if not newest_first:
        return Joined(derive(model, signature))
    broken: list[Verdict] = []
    for lock in newest_first:
        verdict = compare(lock, signature)
        if verdict.outcome is not Outcome.BREAKING:
            return Joined(derive(model, signature, lock), _why(lock, verdict, broken, new_major))
        broken.append(verdict)
    if new_major and major is None:
        return Joined(derive(model, signature, major=following), _opens(model, following, majors, broken[0]))
    raise BreakingChange(broken, [lock.major for lock in newest_first])


def _opens(model: str, major: int, majors: Sequence[int], verdict: Verdict | None = None) -> str:
    if not majors:
        return ""
    beside = ", ".join(str(known) for known in sorted(majors))
    why = "" if verdict is None else ", because " + "; ".join(str(change) for change in verdict.breaking)
    return f"opens API major {major} of {model}, beside {beside}{why}"


def _why(lock: Contract, verdict: Verdict, broken: Sequence[Verdict], new_major: bool) -> str:
    if broken:
        newer = broken[-1]
        differences = "; ".join(str(change) for change in newer.breaking)
        return f"joins API major {lock.major}: it would break {newer.api} ({differences}) and breaks nothing here"
    if new_major:
        return f"needs no new API major: it breaks no caller of {verdict.api}, and joins that"
    if verdict.outcome is Outcome.COMPATIBLE:
        return str(verdict)
    return ""
