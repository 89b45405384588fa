"""Versions are immutable, contracts are locked when served, and a crash leaves no half of anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.lines import Line
from gateway.contract.names import BadModelName
from gateway.registry import NameClash, Registry, UnknownModel, UnknownVersion, Version, VersionExists, VersionState
from tests.server.plant import Plant

ONE = "sha256:" + "1" * 64
TWO = "sha256:" + "2" * 64
THREE = "sha256:" + "3" * 64


def signature(*outputs: str) -> Signature:
    return Signature(
        inputs=(TensorSpec("x", Datatype.FP32, (4,)),),
        outputs=tuple(TensorSpec(name, Datatype.FP32, (4,)) for name in outputs or ("y",)),
        max_batch_size=8,
    )


def register(
    registry: Registry, model: str, digest: str, number: int | None = None, described: Signature | None = None
) -> Version:
    described = described or signature()
    contract = derive(model, described, registry.locked_contract(model))
    return registry.register(model=model, number=number, digest=digest, size=10, signature=described, contract=contract)


def test_versions_are_numbered_from_one_and_numbers_may_be_chosen(plant: Plant) -> None:
    registry = plant.registry
    assert register(registry, "digits", ONE).number == 1
    assert register(registry, "digits", TWO, number=7).number == 7
    assert register(registry, "digits", THREE).number == 8


def test_what_was_registered_is_read_back_whole(plant: Plant) -> None:
    registered = register(plant.registry, "digits", ONE)
    assert plant.registry.version("digits", 1) == registered
    assert registered.state is VersionState.REGISTERED
    assert registered.signature == signature()
    assert registered.artefact.path == plant.artefacts.path_of(ONE)
    assert registered.created_at == plant.clock.now()


def test_the_same_bytes_are_the_version_they_already_are(plant: Plant) -> None:
    first = register(plant.registry, "digits", ONE)
    assert register(plant.registry, "digits", ONE) == first
    assert register(plant.registry, "digits", ONE, number=1) == first
    assert len(plant.registry.versions("digits")) == 1


def test_a_number_never_changes_its_bytes(plant: Plant) -> None:
    register(plant.registry, "digits", ONE)
    with pytest.raises(VersionExists, match=rf"digits version 1 exists with digest {ONE}.*received {TWO}"):
        register(plant.registry, "digits", TWO, number=1)
    assert [v.digest for v in plant.registry.versions("digits")] == [ONE]


def test_the_same_bytes_under_another_number_are_refused(plant: Plant) -> None:
    register(plant.registry, "digits", ONE)
    with pytest.raises(VersionExists, match=r"already digits version 1.*cannot become version 5"):
        register(plant.registry, "digits", ONE, number=5)


def test_two_models_may_share_bytes(plant: Plant) -> None:
    register(plant.registry, "digits", ONE)
    assert register(plant.registry, "letters", ONE).number == 1


def test_two_models_cannot_share_an_identifier(plant: Plant) -> None:
    register(plant.registry, "fraud-score", ONE)
    with pytest.raises(NameClash, match="'fraud_score' clashes with 'fraud-score'"):
        register(plant.registry, "fraud_score", TWO)
    assert [m.name for m in plant.registry.models()] == ["fraud-score"]


@pytest.mark.parametrize("name", ["", "Digits", "1digits", "a" * 64, "digits/../x", "digits\n"])
def test_bad_names_are_refused(plant: Plant, name: str) -> None:
    with pytest.raises(BadModelName):
        plant.registry.find_same(model=name, number=None, digest=ONE)


def test_unknown_models_and_versions_are_named_with_what_is_known(plant: Plant) -> None:
    register(plant.registry, "digits", ONE)
    with pytest.raises(UnknownModel, match="no model 'letters'; known models: digits"):
        plant.registry.version("letters", 1)
    with pytest.raises(UnknownVersion, match="'digits' has no version 9; it has 1"):
        plant.registry.version("digits", 9)


def test_the_contract_is_locked_when_the_version_serves(plant: Plant) -> None:
    version = register(plant.registry, "digits", ONE)
    assert plant.registry.locked_contract("digits") is None
    plant.registry.set_stable("digits", 1)
    assert plant.registry.locked_contract("digits") == version.contract
    assert plant.registry.contracts() == (version.contract,)


def test_the_lock_grows_by_what_a_promoted_version_adds(plant: Plant) -> None:
    registry = plant.registry
    register(registry, "digits", ONE)
    registry.set_stable("digits", 1)
    register(registry, "digits", TWO, described=signature("y", "score"))
    registry.set_stable("digits", 2)
    register(registry, "digits", THREE, described=signature("y"))
    registry.set_stable("digits", 3)
    locked = registry.locked_contract("digits")
    assert locked is not None
    assert [(field.name, field.number) for field in locked.outputs] == [("y", 1), ("score", 2)]


def test_promotion_remembers_what_an_undo_goes_back_to(plant: Plant) -> None:
    registry = plant.registry
    register(registry, "digits", ONE)
    register(registry, "digits", TWO)
    registry.set_stable("digits", 1)
    registry.set_candidate(Line("digits"), 2)
    plant.clock.seconds += 60
    registry.set_stable("digits", 2)
    model = registry.line("digits")
    assert (model.stable, model.candidate, model.previous) == (2, None, 1)
    assert model.stable_since == plant.clock.now()
    registry.forget_previous("digits", 2)
    assert registry.line("digits").previous == 1, "it is not version 2 that is kept for the undo"
    registry.forget_previous("digits", 1)
    assert registry.line("digits").previous is None


def test_making_the_stable_version_stable_again_changes_nothing(plant: Plant) -> None:
    registry = plant.registry
    register(registry, "digits", ONE)
    register(registry, "digits", TWO)
    registry.set_stable("digits", 1)
    registry.set_stable("digits", 2)
    before = registry.model("digits")
    registry.set_stable("digits", 2)
    assert registry.model("digits") == before


def test_everything_is_there_after_a_restart(plant: Plant, tmp_path: Path) -> None:
    register(plant.registry, "digits", ONE)
    plant.registry.set_stable("digits", 1)
    again = Plant(tmp_path)
    assert again.registry.models() == plant.registry.models()
    assert again.registry.versions("digits") == plant.registry.versions("digits")
    assert again.registry.contracts() == plant.registry.contracts()
    again.close()


def test_a_version_that_was_being_loaded_in_a_crash_is_failed_at_the_next_start(plant: Plant, tmp_path: Path) -> None:
    register(plant.registry, "digits", ONE)
    register(plant.registry, "digits", TWO)
    plant.registry.set_state("digits", 1, VersionState.READY)
    plant.registry.set_state("digits", 2, VersionState.LOADING)
    again = Plant(tmp_path)
    assert [v.number for v in again.registry.fail_interrupted()] == [2]
    assert again.registry.version("digits", 1).state is VersionState.READY
    assert again.registry.version("digits", 2).state is VersionState.FAILED
    assert "deploy the same file to try again" in again.registry.version("digits", 2).reason
    again.close()


def test_a_registration_that_fails_half_way_leaves_nothing(plant: Plant) -> None:
    # The database's own constraint fails the second statement of the transaction; the first must not stay.
    plant.connection.execute(
        "CREATE TRIGGER full BEFORE INSERT ON versions BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    with pytest.raises(Exception, match="disk full"):
        register(plant.registry, "digits", ONE)
    assert plant.registry.models() == ()
