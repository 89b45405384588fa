"""Tests of an app without a gateway: record answers once, replay them anywhere.

    with Recorder(Client("http://127.0.0.1:8080"), "iris.json") as client:
        client.predict("iris", {"x": [5.1, 3.5, 1.4, 0.2]})

    client = FakeClient("iris.json")
    client.predict("iris", {"x": [5.1, 3.5, 1.4, 0.2]})

`python -m penstock_client.fake_gateway iris.json` answers the same over typed JSON and typed gRPC, for apps in other
languages. Streams are not recorded.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

from penstock_client import recording
from penstock_client.answer import Answer
from penstock_client.errors import PenstockError
from penstock_client.options import Call
from penstock_client.recording import Asked, ModelApi, NotRecorded, Recorded, Recording
from penstock_client.typed import Predicts
from penstock_client.wire import Row

__all__ = ["AsyncFakeClient", "FakeClient", "Feedback", "NotRecorded", "Recorder"]


class Records(Predicts, Protocol):
    """What can be recorded: `Client`, `GrpcClient`."""

    def descriptor(self, model: str, *, major: int = 1) -> bytes: ...


class Recorder:
    """A client that passes every call on, and writes the calls and their answers to a file when it is closed.

    Errors that the gateway answers are recorded too. A call that was made twice is kept once, as it went last.
    """

    def __init__(self, client: Records, path: str | Path) -> None:
        self._client = client
        self._path = Path(path)
        self._calls: list[Recorded] = []
        self._descriptors: dict[ModelApi, bytes] = {}

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As the client's own."""
        outcome: Answer | PenstockError
        try:
            outcome = self._client.predict(model, inputs, **call)
        except PenstockError as error:
            outcome = error
        asked = Asked.of(model, inputs, major=call.get("major", 1), version=call.get("version"))
        self._calls = [*(other for other in self._calls if not other.asked.matches(asked)), Recorded.of(asked, outcome)]
        self._describe(asked)
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
        recording.write(self._path, Recording(self._calls, self._descriptors))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _describe(self, asked: Asked) -> None:
        """Keep the model's protobuf. Without it (no such model, an older gateway) the recording serves JSON alone."""
        if asked.api not in self._descriptors:
            with suppress(PenstockError):
                self._descriptors[asked.api] = self._client.descriptor(asked.model, major=asked.major)


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
        self.recording = recording.read(self._path)
        self.given: list[Feedback] = []

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As `Client.predict`, from the recording. Who asks makes no difference; a pinned version does."""
        asked = Asked.of(model, inputs, major=call.get("major", 1), version=call.get("version"))
        found = self.recording.found(asked)
        if found is None:
            raise NotRecorded(self._unknown(asked))
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

    def _unknown(self, asked: Asked) -> str:
        here = [call.asked for call in self.recording.calls if call.asked.api == asked.api]
        if not here:
            models = ", ".join(sorted({_named(call.asked) for call in self.recording.calls})) or "none"
            return f"{self._path} holds no answers of {_named(asked)}; its models: {models}. Record it with Recorder."
        shown = "; ".join(_short(each) for each in here[:3])
        return (
            f"{self._path} holds no answer of {_named(asked)} for {_short(asked)}. It holds {len(here)}: {shown}. "
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


def _named(asked: Asked) -> str:
    return repr(asked.model) if asked.major == 1 else f"{asked.model!r} (v{asked.major})"


def _short(asked: Asked) -> str:
    pinned = "" if asked.version is None else f"version {asked.version}, "
    text = f"{pinned}{json.dumps(asked.inputs)}"
    return text if len(text) <= 120 else f"{text[:120]}..."
