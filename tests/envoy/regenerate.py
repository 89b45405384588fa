"""Writes the golden configuration anew: `python -m tests.envoy.regenerate`. Read the diff before committing it."""

from __future__ import annotations

from pathlib import Path

import yaml

from gateway.envoy.yaml_config import static_yaml
from tests.envoy.states import model, settings, state

GOLDEN = Path(__file__).parent / "golden" / "static.yaml"


def golden_text() -> str:
    """The static configuration of one model with a canary, without the scripts, which have tests of their own."""
    config = yaml.safe_load(static_yaml(state(model("digits", 1, 2, stable=1, canary=2)), settings(), {"digits": 3000}))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    for each in manager["http_filters"]:
        if "default_source_code" in each["typed_config"]:
            each["typed_config"]["default_source_code"]["inline_string"] = "..."
    return yaml.safe_dump(config, sort_keys=True, width=120)


if __name__ == "__main__":
    GOLDEN.write_text(golden_text())
