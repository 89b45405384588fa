"""What the typed modules that `penstock api MODEL --format python` writes are made of.

A generated class says the model's inputs and outputs by name and type, and leaves the call to any client with the
methods of `Predicts` (`Client`, `GrpcClient`, `fake.FakeClient`) or `AsyncPredicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, Unpack

from penstock_client.answer import Answer
from penstock_client.options import Call
from penstock_client.wire import Row

Prediction = TypeVar("Prediction")


class Predicts(Protocol):
    """Any client to call in a thread."""

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer: ...

    def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None: ...


class AsyncPredicts(Protocol):
    """Any client to await."""

    async def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer: ...

    async def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class TypedAnswer(Generic[Prediction]):
    """`Answer`, with each row as the model's own prediction type."""

    rows: tuple[Prediction, ...]
    model: str
    version: int
    request_id: str

    @classmethod
    def of(cls, answer: Answer, prediction: Callable[[Row], Prediction]) -> TypedAnswer[Prediction]:
        return cls(tuple(prediction(row) for row in answer.rows), answer.model, answer.version, answer.request_id)

    @property
    def row(self) -> Prediction:
        """The only row. Raises ValueError when there are several."""
        if len(self.rows) != 1:
            raise ValueError(f"this answer of {self.model!r} has {len(self.rows)} rows: use .rows")
        return self.rows[0]
