"""What Envoy is told of mirroring: only while a candidate is staged, 0 without a lease, and never where it is off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.envoy.compile import compile
from gateway.envoy.snapshot import Snapshot, TypeUrl
from gateway.envoy.wire import to_wire
from gateway.envoy.yaml_config import EnvoyForm, envoy_yaml
from gateway.mirror import pairs
from tests.envoy.states import loopback, model, settings, state
from tests.envoy.test_compile import _validate

MIRRORING = replace(settings(), mirror=loopback(18002))
STAGED = state(model("digits", 1, 2, stable=1, canary=2), model("iris", 7, stable=7))


def policies(snapshot: Snapshot, key: str) -> Iterator[dict[str, Any]]:
    for route in snapshot.resources[TypeUrl.ROUTES][key].body["virtual_hosts"][0]["routes"]:
        yield from route.get("route", {}).get("request_mirror_policies", [])


def test_shared_routes_of_a_staged_candidate_have_a_share_of_0_and_a_key_for_it() -> None:
    snapshot = compile(STAGED, MIRRORING)
    found = list(policies(snapshot, "digits"))
    # Typed gRPC, typed JSON and Open Inference gRPC; not Open Inference HTTP.
    assert len(found) == 3
    assert {policy["cluster"] for policy in found} == {"penstock-mirror"}
    fractions = {str(policy["runtime_fraction"]) for policy in found}
    assert len(fractions) == 1
    assert found[0]["runtime_fraction"] == {
        "default_value": {"numerator": 0, "denominator": "TEN_THOUSAND"},
        "runtime_key": "penstock.models.digits.1-2.mirror",
    }
    assert list(policies(snapshot, "iris")) == []
    assert "penstock-mirror" in snapshot.resources[TypeUrl.CLUSTER]


def test_the_share_is_a_part_of_the_lease() -> None:
    snapshot = compile(STAGED, MIRRORING)
    assert snapshot.runtime({}, {"digits": 250}) == {
        "penstock.models.digits.1-2.mirror": {"numerator": 250, "denominator": "TEN_THOUSAND"}
    }
    for mirrors, words in (({"iris": 1}, "has no canary"), ({"digits": 10_001}, "0 to 10000")):
        with pytest.raises(ValueError, match=words):
            snapshot.runtime({}, mirrors)


def test_without_an_evaluator_nothing_is_mirrored() -> None:
    snapshot = compile(STAGED, settings())
    assert list(policies(snapshot, "digits")) == []
    assert "penstock-mirror" not in snapshot.resources[TypeUrl.CLUSTER]


def test_envoy_accepts_it(tmp_path: Path) -> None:
    for named in compile(STAGED, MIRRORING).resources.values():
        for resource in named.values():
            to_wire(resource)
    compiled = envoy_yaml(EnvoyForm.COMPILED, STAGED, MIRRORING, {"digits": 100})
    assert "penstock-mirror" in compiled
    _validate(compiled, tmp_path)
    assert "penstock-mirror" not in envoy_yaml(EnvoyForm.STATIC, STAGED, MIRRORING, {"digits": 100})


def test_pairs_are_those_with_a_share_and_both_versions_served_names() -> None:
    (pair,) = pairs(STAGED, {"digits": 10}, lambda _: None)
    assert (pair.line, pair.scope, pair.key) == ("digits", "digits", "digits/1-2")
    assert (pair.stable.served_name, pair.candidate.served_name) == ("digits.1", "digits.2")
    assert pairs(STAGED, {"digits": 0}, lambda _: None) == ()
