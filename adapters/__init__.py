"""Inference servers behind one Protocol.

The only folder that imports tritonclient or knows how a server stores, loads and answers for a model. It knows
nobody above it: `rollout` and `gateway` import it, never the other way.
"""
