"""State of many rollouts at once: arrays whose first axis is the rollout.

The judge of a control plane holds one rollout, the simulation bench thousands in step; both run the same code. What
is remembered is named once per class, so that it is written to the journal, read back and thinned out in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rollout.judge.evalues import IntArray


class Rows:
    """`arrays` name the attributes that hold state, `parts` those that are `Rows` themselves."""

    arrays: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()

    def keep(self, rows: IntArray) -> None:
        """Go on with these rollouts only, in this order."""
        for name in self.arrays:
            setattr(self, name, getattr(self, name)[rows])
        for name in self.parts:
            getattr(self, name).keep(rows)

    def to_json(self) -> dict[str, Any]:
        """State of the first rollout."""
        own = {name: getattr(self, name)[0].tolist() for name in self.arrays}
        return own | {name: getattr(self, name).to_json() for name in self.parts}

    def load(self, value: Mapping[str, Any]) -> None:
        """Take back what `to_json` gave. Raises ValueError when it is of another shape than these settings make."""
        for name in self.arrays:
            known = getattr(self, name)
            loaded = np.array([value[name]], dtype=known.dtype)
            if not known.size and not loaded.size:
                continue
            if loaded.shape[1:] != known.shape[1:]:
                raise ValueError(
                    f"judge state: expected {name} of shape {known.shape[1:]}, received {loaded.shape[1:]}; "
                    "the settings differ from those the state was written under: start the step anew"
                )
            setattr(self, name, loaded)
        for name in self.parts:
            getattr(self, name).load(value[name])
