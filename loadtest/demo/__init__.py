"""`make demo`: four versions of a digits model through the whole life of a rollout, on real parts."""
