"""Tests of an app without a gateway: record answers once, replay them anywhere.

    with Recorder(Client("http://127.0.0.1:8080"), "iris.json") as client:
        client.predict("iris", {"x": [5.1, 3.5, 1.4, 0.2]})

    client = FakeClient("iris.json")
    client.predict("iris", {"x": [5.1, 3.5, 1.4, 0.2]})

`python -m penstock_client.fake_gateway iris.json` answers the same over HTTP, for apps in other languages.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from penstock_client import recording
from penstock_client.answer import Answer
from penstock_client.errors import PenstockError
from penstock_client.options import Call
from penstock_client.recording import NotRecorded, Recorded
from penstock_client.typed import Predicts
from penstock_client.wire import Row

__all__ = ["AsyncFakeClient", "FakeClient", "Feedback", "NotRecorded", "Recorder"]


class Recorder:
    """A client that passes every call on, and writes the calls and their answers to a file when it is closed.

    Errors that the gateway answers are recorded too. A call that was made twice is kept once, as it went last.
    """

    def __init__(self, client: Predicts, path: str | Path) -> None:
        self._client = client
        self._path = Path(path)
        self._calls: dict[str, Recorded] = {}

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As the client's own."""
        outcome: Answer | PenstockError
        try:
            outcome = self._client.predict(model, inputs, **call)
        except PenstockError as error:
            outcome = error
        recorded = recording.answered(model, call.get("version"), inputs, outcome)
        self._calls[recorded.key] = recorded
        if isinstance(outcome, PenstockError):
            raise outcome
        return outcome

    def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """As the client's own; not recorded."""
        self._client.feedback(request_id, label=label, reward=reward, row=row)

    def close(self) -> None:
        """Write the file. The client stays open."""
        recording.write(self._path, tuple(self._calls.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback that a fake was given."""

    request_id: str
    label: Any
    reward: float | None
    row: int | None


class FakeClient:
    """Answers what a recording holds. `given` is the feedback it got, in order, for a test to look at.

    Raises NotRecorded for what was not recorded, and the recorded PenstockError for what the gateway refused.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._calls = {call.key: call for call in recording.read(self._path)}
        self.given: list[Feedback] = []

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As `Client.predict`, from the recording. Who asks makes no difference; a pinned version does."""
        version = call.get("version")
        found = self._calls.get(recording.key_of(model, version, inputs))
        if found is None:
            raise NotRecorded(self._unknown(model, version, inputs))
        return found.answer(call.get("request_id") or str(uuid.uuid4()))

    def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """Kept in `given`."""
        self.given.append(Feedback(request_id, label, reward, row))

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _unknown(self, model: str, version: int | None, inputs: Row | Sequence[Row]) -> str:
        asked = recording.key_of(model, version, inputs).partition(" ")[2]
        here = [call for call in self._calls.values() if call.model == model]
        if not here:
            models = ", ".join(sorted({call.model for call in self._calls.values()})) or "none"
            return f"{self._path} holds no answers of {model!r}; its models: {models}. Record it with Recorder."
        shown = "; ".join(_short(call.key.partition(" ")[2]) for call in here[:3])
        return (
            f"{self._path} holds no answer of {model!r} for {_short(asked)}. It holds {len(here)}: {shown}. "
            "Record this input with Recorder, or correct it."
        )


class AsyncFakeClient:
    """`FakeClient` for asyncio."""

    def __init__(self, path: str | Path) -> None:
        self._fake = FakeClient(path)

    @property
    def given(self) -> list[Feedback]:
        return self._fake.given

    async def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As `FakeClient.predict`."""
        return self._fake.predict(model, inputs, **call)

    async def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """As `FakeClient.feedback`."""
        self._fake.feedback(request_id, label=label, reward=reward, row=row)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 120 else f"{text[:120]}..."
