"""What an operator's request to the controller can meet; each message is for a person and says what to do next."""

from __future__ import annotations


class RolloutError(Exception):
    """Base of what the controller refuses."""


class NoRollout(RolloutError):
    """The model has no rollout that the verb could mean."""


class RolloutActive(RolloutError):
    """Another rollout of the model is under way."""


class IllegalVerb(RolloutError):
    """The rollout is in a state in which the verb makes no sense; the message lists those that do."""


class UndecidableStep(RolloutError):
    """At the present traffic a step could not be decided in time, and the spec refuses to begin then."""


class NothingToRollOut(RolloutError):
    """The candidate is the stable version already."""
