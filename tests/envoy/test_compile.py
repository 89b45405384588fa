"""The compile: a pure function whose every output the real Envoy accepts."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lupa import luajit21

from adapters.server import Address
from adapters.signature import Datatype, Signature, TensorSpec
from gateway.envoy.compile import BadState, compile
from gateway.envoy.context import TENSORS_FILTER
from gateway.envoy.snapshot import TypeUrl
from gateway.envoy.state import GatewayState, ModelRoutes
from gateway.envoy.wire import to_wire
from gateway.envoy.yaml_config import bootstrap_yaml, static_yaml
from tests.envoy.live import ENVOY
from tests.envoy.regenerate import GOLDEN, golden_text
from tests.envoy.states import backend, model, settings, state

CLASSIFIER = Signature(
    (TensorSpec("x", Datatype.FP32, (2, -1)), TensorSpec("id", Datatype.BYTES, ())),
    (TensorSpec("label", Datatype.INT64, ()), TensorSpec("probabilities", Datatype.FP32, (3,))),
)

NAMES = st.sampled_from(["digits", "iris", "iris-big", "a_b", "z9"])


@st.composite
def model_routes(draw: st.DrawFn, name: str) -> ModelRoutes:
    versions = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True))
    canary = versions[1] if len(versions) > 1 and draw(st.booleans()) else None
    signature = draw(st.sampled_from([CLASSIFIER, replace(CLASSIFIER, max_batch_size=4)]))
    return model(name, *versions, stable=versions[0], canary=canary, signature=signature)


@st.composite
def states(draw: st.DrawFn) -> GatewayState:
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    return state(*(draw(model_routes(name)) for name in names))


@examples(max_examples=40, deadline=None)
@given(states(), st.randoms(use_true_random=False))
def test_the_order_of_the_state_does_not_matter(given_state: GatewayState, rng: random.Random) -> None:
    def shuffled(items: tuple[ModelRoutes, ...]) -> tuple[ModelRoutes, ...]:
        mixed = [replace(m, versions=tuple(rng.sample(m.versions, len(m.versions)))) for m in items]
        rng.shuffle(mixed)
        return tuple(mixed)

    other = replace(given_state, models=shuffled(given_state.models))
    assert compile(other, settings()) == compile(given_state, settings())


@examples(max_examples=40, deadline=None)
@given(states())
def test_every_resource_is_a_message_that_envoy_knows(given_state: GatewayState) -> None:
    snapshot = compile(given_state, settings())
    for resources in snapshot.resources.values():
        for name, resource in resources.items():
            wired = to_wire(resource)
            assert (wired.name, wired.version) == (name, resource.version)
            assert wired.resource.value == to_wire(resource).resource.value


@examples(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(states())
def test_envoy_accepts_every_static_configuration(tmp_path_factory: pytest.TempPathFactory, s: GatewayState) -> None:
    weights = {m.model: 2500 for m in s.models if m.canary is not None}
    _validate(static_yaml(s, settings(), weights), tmp_path_factory.mktemp("static"))


def test_envoy_accepts_the_bootstrap(tmp_path: Path) -> None:
    _validate(bootstrap_yaml(settings()), tmp_path)


def test_envoy_accepts_a_server_known_by_name(tmp_path: Path) -> None:
    named = replace(backend(), grpc=Address("triton.models.svc", 8001), http=Address("triton.models.svc", 8000))
    _validate(static_yaml(state(model("digits", 1, stable=1), server=named), settings(), {}), tmp_path)


def test_only_what_changed_gets_a_new_version() -> None:
    before = compile(state(model("digits", 1, stable=1), model("iris", 1, stable=1)), settings())
    after = compile(state(model("digits", 1, 2, stable=1, canary=2), model("iris", 1, stable=1)), settings())
    changed = [
        name
        for type_url, named in after.resources.items()
        for name, resource in named.items()
        if before.resources[type_url].get(name) != resource
    ]
    assert changed == ["digits"]
    assert after.version != before.version


def test_weights_are_pairs_with_a_constant_sum() -> None:
    snapshot = compile(state(model("iris-big", 3, 4, stable=3, canary=4)), settings())
    assert snapshot.runtime({"iris-big": 3000}) == {
        "penstock.models.iris_big.3-4.triton.canary": 3000,
        "penstock.models.iris_big.3-4.triton.stable": 7000,
        "penstock.models.iris_big.3-4.triton-http.canary": 3000,
        "penstock.models.iris_big.3-4.triton-http.stable": 7000,
    }
    assert snapshot.runtime({}) == {}


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"digits": 100}, "has no canary"), ({"iris": 10_001}, "0 to 10000"), ({"iris": -1}, "0 to 10000")],
)
def test_impossible_weights_are_refused(weights: dict[str, int], words: str) -> None:
    snapshot = compile(state(model("digits", 1, stable=1), model("iris", 1, 2, stable=1, canary=2)), settings())
    with pytest.raises(ValueError, match=words):
        snapshot.runtime(weights)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (state(model("digits", 1, stable=2)), "stable is version 2, which is not among its served versions"),
        (state(model("digits", 1, stable=1, canary=3)), "canary is version 3"),
        (state(model("digits", 1, stable=1, canary=1)), "both stable and canary"),
        (state(model("a-b", 1, stable=1), model("a_b", 1, stable=1)), "several models have the key 'a_b'"),
        (state(model("digits", 1, stable=1, server="other")), "backend 'other', which is not configured"),
        (state(server=backend(name="Big Server")), "backend name 'Big Server'"),
        (
            GatewayState(backends=(backend(name="t"), backend(name="t-http"))),
            "several backends make a cluster named 't-http'",
        ),
        (state(replace(model("digits", 1, stable=1), model="iris")), "has the contract of 'digits'"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(bad: GatewayState, words: str) -> None:
    with pytest.raises(BadState, match=words):
        compile(bad, settings())


def test_a_canary_of_another_api_major_is_refused() -> None:
    one = model("digits", 1, 2, stable=1, canary=2)
    newer = replace(one.versions[1], contract=replace(one.versions[1].contract, major=2))
    with pytest.raises(BadState, match="lines do not share versions"):
        compile(state(replace(one, versions=(one.versions[0], newer))), settings())


def test_contexts_are_told_apart_by_their_content() -> None:
    snapshot = compile(state(model("digits", 1, 2, stable=1, canary=2, signature=CLASSIFIER)), settings())
    contexts = _contexts(snapshot.resources[TypeUrl.ROUTES]["digits"].body)
    by_id: dict[str, object] = {}
    for context in contexts:
        told = {key: value for key, value in context.items() if isinstance(value, str | int | bool)}
        assert by_id.setdefault(context["id"], told) == told
    assert len(by_id) == 8, "two versions in four protocols"
    assert {c["label"] for c in contexts} == {"label"}


def test_every_id_on_a_route_is_in_its_metadata() -> None:
    snapshot = compile(state(model("digits", 1, 2, stable=1, canary=2)), settings())
    (host,) = snapshot.resources[TypeUrl.ROUTES]["digits"].body["virtual_hosts"]
    for route in host["routes"]:
        entries = route.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
        ids = {
            own["filter_context"]["id"]
            for holder in (route, *entries)
            if "filter_context" in (own := holder.get("typed_per_filter_config", {}).get(TENSORS_FILTER, {}))
        }
        assert ids == {context["id"] for context in _contexts(route)}


def test_the_static_configuration_is_what_it_was() -> None:
    assert golden_text() == GOLDEN.read_text(), (
        "after a wanted change: python -m tests.envoy.regenerate, and read the diff"
    )


def _contexts(body: object) -> list[dict[str, str]]:
    if isinstance(body, list):
        return [context for part in body for context in _contexts(part)]
    if isinstance(body, dict):
        own = body.get("filter_metadata", {}).get(TENSORS_FILTER, {})
        tables = [dict(luajit21.LuaRuntime().eval(text)) for text in own.values()]
        return [*tables, *(context for part in body.values() for context in _contexts(part))]
    return []


def _validate(config: str, directory: Path) -> None:
    path = directory / "envoy.yaml"
    path.write_text(config)
    done = subprocess.run([ENVOY, "--mode", "validate", "-c", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[warning]" not in done.stderr, done.stderr[-2000:]
