"""What the control plane remembers about models: versions, locked contracts, and where each model's traffic goes.

The durable truth of the gateway, in SQLite. Written by the deploy use case and the routing; read by everything that
describes or serves models. It knows nothing of Envoy or of inference servers: `gateway.routing_state` turns it into
the values that are compiled.

Each method is one transaction, so a crash leaves the state before it or the state after it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from adapters.server import Artefact
from adapters.signature import Signature
from gateway.contract.model import Contract
from gateway.contract.names import check_model_name, model_key
from gateway.database import transaction
from rollout.ports import Clock


class RegistryError(Exception):
    """Base of what the registry refuses; the message is for a person."""


class NameClash(RegistryError):
    """Another model already uses the identifier that this name becomes in the API."""

    def __init__(self, name: str, taken_by: str) -> None:
        super().__init__(
            f"the model name {name!r} clashes with {taken_by!r}: both become {model_key(name)!r} in the gRPC package. "
            f"Choose a name that differs by more than '-' and '_'"
        )
        self.name = name
        self.taken_by = taken_by


class VersionExists(RegistryError):
    """The number is taken by other bytes, or these bytes already have another number."""


class UnknownModel(RegistryError):
    """No model of this name was ever deployed."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        known_text = f"known models: {', '.join(known)}" if known else "no model is deployed yet"
        super().__init__(f"there is no model {name!r}; {known_text}")
        self.name = name


class UnknownVersion(RegistryError):
    """The model has no version of this number."""

    def __init__(self, model: str, number: int, known: Sequence[int]) -> None:
        super().__init__(
            f"model {model!r} has no version {number}; it has {', '.join(map(str, known)) or 'none'}",
        )
        self.model = model
        self.number = number


class VersionState(StrEnum):
    REGISTERED = "registered"
    LOADING = "loading"
    READY = "ready"
    """Loaded and proven by a completed inference at least once."""
    FAILED = "failed"
    """Could not be loaded or did not answer; `reason` says why. Never routed. Deploying the same file tries again."""


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version. `digest` is `sha256:<hex>`, `size` in bytes, `created_at` seconds since the epoch.

    `contract` is the public API this version answers, with the model's locked names and numbers.
    """

    model: str
    number: int
    digest: str
    size: int
    path: Path
    signature: Signature
    contract: Contract
    state: VersionState
    reason: str
    created_at: float

    @property
    def artefact(self) -> Artefact:
        """The version as the inference servers take it."""
        return Artefact(self.model, self.number, self.path, self.digest, self.signature)


@dataclass(frozen=True, slots=True)
class Model:
    """One model and where its traffic goes.

    `previous` was stable before, until `stable_since` (seconds since the epoch), and is kept loaded for an undo.
    """

    name: str
    key: str
    created_at: float
    stable: int | None
    candidate: int | None
    previous: int | None
    stable_since: float | None


_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    stable INTEGER,
    candidate INTEGER,
    previous INTEGER,
    stable_since REAL
) STRICT;
CREATE TABLE IF NOT EXISTS versions (
    model TEXT NOT NULL REFERENCES models(name),
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    signature TEXT NOT NULL,
    contract TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (model, number),
    UNIQUE (model, digest)
) STRICT;
CREATE TABLE IF NOT EXISTS contracts (
    model TEXT NOT NULL REFERENCES models(name),
    major INTEGER NOT NULL,
    contract TEXT NOT NULL,
    locked_at REAL NOT NULL,
    PRIMARY KEY (model, major)
) STRICT;
"""


class Registry:
    """Models, versions, contracts and routing state.

    `connection` comes from `gateway.database.open_database`; the tables are made here if they are missing.
    `artefact_path` says where the file of a digest is (`ArtefactStore.path_of`), so that a data directory can move.
    """

    def __init__(self, *, connection: sqlite3.Connection, clock: Clock, artefact_path: Callable[[str], Path]) -> None:
        self._db = connection
        self._artefact_path = artefact_path
        self._clock = clock
        connection.executescript(_SCHEMA)

    # Reading

    def models(self) -> tuple[Model, ...]:
        """Every model, by name."""
        return tuple(_model(row) for row in self._db.execute("SELECT * FROM models ORDER BY name"))

    def find_model(self, name: str) -> Model | None:
        row = self._db.execute("SELECT * FROM models WHERE name = ?", (name,)).fetchone()
        return None if row is None else _model(row)

    def model(self, name: str) -> Model:
        """Raises UnknownModel."""
        found = self.find_model(name)
        if found is None:
            raise self.unknown(name)
        return found

    def unknown(self, name: str) -> UnknownModel:
        """The error for a model that is not there."""
        return UnknownModel(name, [model.name for model in self.models() if model.name != name])

    def versions(self, model: str) -> tuple[Version, ...]:
        """Every version of a model, oldest number first; empty for an unknown model."""
        rows = self._db.execute("SELECT * FROM versions WHERE model = ? ORDER BY number", (model,))
        return tuple(self._version(row) for row in rows)

    def version(self, model: str, number: int) -> Version:
        """Raises UnknownModel, UnknownVersion."""
        row = self._db.execute("SELECT * FROM versions WHERE model = ? AND number = ?", (model, number)).fetchone()
        if row is None:
            self.model(model)
            raise UnknownVersion(model, number, [v.number for v in self.versions(model)])
        return self._version(row)

    def locked_contract(self, model: str, major: int = 1) -> Contract | None:
        """The contract that callers of this API major rely on; None before the first version was published."""
        row = self._db.execute(
            "SELECT contract FROM contracts WHERE model = ? AND major = ?", (model, major)
        ).fetchone()
        return None if row is None else Contract.from_json(json.loads(row["contract"]))

    def check_name(self, name: str) -> None:
        """Whether a model can have this name. Raises BadModelName, NameClash."""
        check_model_name(name)
        row = self._db.execute("SELECT name FROM models WHERE key = ?", (model_key(name),)).fetchone()
        if row is not None and row["name"] != name:
            raise NameClash(name, row["name"])

    def contracts(self) -> tuple[Contract, ...]:
        """Every contract that is published, by model and major."""
        rows = self._db.execute("SELECT contract FROM contracts ORDER BY model, major")
        return tuple(Contract.from_json(json.loads(row["contract"])) for row in rows)

    def find_same(self, *, model: str, number: int | None, digest: str) -> Version | None:
        """The version that these bytes already are, so that registering them would change nothing.

        Raises BadModelName, NameClash, and VersionExists: the number belongs to other bytes, or the bytes to another
        number.
        """
        self.check_name(model)
        row = self._db.execute("SELECT * FROM versions WHERE model = ? AND digest = ?", (model, digest)).fetchone()
        if row is not None:
            same = self._version(row)
            if number is not None and number != same.number:
                raise VersionExists(
                    f"these bytes are already {model} version {same.number}, so they cannot become version {number}: "
                    f"leave the version out, or deploy another file"
                )
            return same
        if number is not None:
            taken = self._db.execute(
                "SELECT digest FROM versions WHERE model = ? AND number = ?", (model, number)
            ).fetchone()
            if taken is not None:
                raise VersionExists(
                    f"{model} version {number} exists with digest {taken['digest']}, and versions never change; "
                    f"received {digest}. Leave the version out to get the next free number"
                )
        return None

    # Writing

    def register(
        self,
        *,
        model: str,
        number: int | None,
        digest: str,
        size: int,
        signature: Signature,
        contract: Contract,
    ) -> Version:
        """Add a version (and the model with its first one) in state REGISTERED.

        `number` None takes the next one above all there ever were. Registering the same bytes again returns the
        version they already are. Raises as `find_same`.
        """
        now = self._clock.now()
        with transaction(self._db):
            same = self.find_same(model=model, number=number, digest=digest)
            if same is not None:
                return same
            self._db.execute(
                "INSERT OR IGNORE INTO models (name, key, created_at) VALUES (?, ?, ?)", (model, model_key(model), now)
            )
            if number is None:
                row = self._db.execute("SELECT max(number) AS last FROM versions WHERE model = ?", (model,)).fetchone()
                number = (row["last"] or 0) + 1
            self._db.execute(
                "INSERT INTO versions (model, number, digest, size, signature, contract, state, reason, "
                "created_at) VALUES (?, ?, ?, ?, ?, ?, ?, '', ?)",
                (
                    model,
                    number,
                    digest,
                    size,
                    json.dumps(signature.to_json()),
                    json.dumps(contract.to_json()),
                    VersionState.REGISTERED,
                    now,
                ),
            )
        return self.version(model, number)

    def set_state(self, model: str, number: int, state: VersionState, reason: str = "") -> None:
        """Record how far a version has come. Raises UnknownModel, UnknownVersion."""
        self.version(model, number)
        self._db.execute(
            "UPDATE versions SET state = ?, reason = ? WHERE model = ? AND number = ?", (state, reason, model, number)
        )

    def set_candidate(self, model: str, candidate: int | None, contract: Contract | None = None) -> None:
        """Record which version is being rolled out; None for none. Raises UnknownModel.

        `contract` replaces the candidate's own: the lock may have grown since the version was registered.
        """
        self.model(model)
        with transaction(self._db):
            self._db.execute("UPDATE models SET candidate = ? WHERE name = ?", (candidate, model))
            if contract is not None:
                self._db.execute(
                    "UPDATE versions SET contract = ? WHERE model = ? AND number = ?",
                    (json.dumps(contract.to_json()), model, candidate),
                )

    def set_stable(self, model: str, number: int) -> None:
        """Make a version the stable one; the old one becomes `previous`. A no-op when it is stable already.

        Its contract is locked from here on: what callers were served, they can rely on.
        Raises UnknownModel, UnknownVersion.
        """
        version = self.version(model, number)
        with transaction(self._db):
            before = self.model(model)
            if before.stable == number:
                return
            self._db.execute(
                "UPDATE models SET stable = ?, candidate = NULLIF(candidate, ?), previous = ?, stable_since = ? "
                "WHERE name = ?",
                (number, number, before.stable, self._clock.now(), model),
            )
            lock = _grown(self.locked_contract(model, version.contract.major), version.contract)
            self._db.execute(
                "INSERT INTO contracts (model, major, contract, locked_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (model, major) DO UPDATE SET contract = excluded.contract",
                (model, lock.major, json.dumps(lock.to_json()), self._clock.now()),
            )

    def forget_previous(self, model: str, number: int) -> None:
        """Stop keeping this version for an undo; nothing happens when it is not the previous one."""
        self._db.execute("UPDATE models SET previous = NULL WHERE name = ? AND previous = ?", (model, number))

    def restore(self, model: Model) -> None:
        """Put a model's routing state back to what it was, after the data plane refused a change."""
        self._db.execute(
            "UPDATE models SET stable = ?, candidate = ?, previous = ?, stable_since = ? WHERE name = ?",
            (model.stable, model.candidate, model.previous, model.stable_since, model.name),
        )

    def fail_interrupted(self) -> tuple[Version, ...]:
        """Mark versions that were being loaded when the process ended. Call once at start; returns them as they were.

        A rollout that resumes loads its candidate again, which makes it READY again.
        """
        interrupted = tuple(
            self._version(row)
            for row in self._db.execute(
                "SELECT * FROM versions WHERE state IN (?, ?)", (VersionState.REGISTERED, VersionState.LOADING)
            )
        )
        reason = "the control plane stopped while this version was being loaded: deploy the same file to try again"
        with transaction(self._db):
            for version in interrupted:
                self.set_state(version.model, version.number, VersionState.FAILED, reason)
        return interrupted

    def _version(self, row: sqlite3.Row) -> Version:
        return Version(
            model=row["model"],
            number=row["number"],
            digest=row["digest"],
            size=row["size"],
            path=self._artefact_path(row["digest"]),
            signature=Signature.from_json(json.loads(row["signature"])),
            contract=Contract.from_json(json.loads(row["contract"])),
            state=VersionState(row["state"]),
            reason=row["reason"],
            created_at=row["created_at"],
        )


def _model(row: sqlite3.Row) -> Model:
    return Model(
        name=row["name"],
        key=row["key"],
        created_at=row["created_at"],
        stable=row["stable"],
        candidate=row["candidate"],
        previous=row["previous"],
        stable_since=row["stable_since"],
    )


def _grown(lock: Contract | None, contract: Contract) -> Contract:
    """The lock with the outputs that a compatible version adds; what was locked stays word for word."""
    if lock is None:
        return contract
    known = {field.name for field in lock.outputs}
    added = tuple(field for field in contract.outputs if field.name not in known)
    return replace(lock, outputs=(*lock.outputs, *added))
