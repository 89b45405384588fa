"""What a prediction gives back, the same over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of one call.

    `rows` holds one mapping from output name to value per instance; a model that does not batch gives one row.
    `version` is the model's version that answered; `request_id` names the call for `Client.feedback`.
    """

    rows: tuple[Mapping[str, Any], ...]
    batched: bool
    model: str
    version: int
    request_id: str

    @property
    def row(self) -> Mapping[str, Any]:
        """The only row. Raises ValueError when there are several."""
        if len(self.rows) != 1:
            raise ValueError(f"this answer of {self.model!r} has {len(self.rows)} rows: use .rows")
        return self.rows[0]

    def array(self, output: str, dtype: DTypeLike = None) -> NDArray[np.generic]:
        """One output of all rows as a numpy array, rows first (a model that does not batch has no such dimension)."""
        import numpy as np

        return np.asarray([row[output] for row in self.rows] if self.batched else self.row[output], dtype)
