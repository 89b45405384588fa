"""Load tests and the demo: Locust users made from a model's contract, over the public surface only."""
