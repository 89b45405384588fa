"""What the control plane remembers about models: versions, locked contracts, and where each line's traffic goes.

The durable truth of the gateway, in SQLite (`gateway.registry_schema`). Written by the deploy use case and the routing;
read by everything that describes or serves models. It knows nothing of Envoy or of inference servers:
`gateway.routing_state` turns it into the values that are compiled.

Each method is one transaction, so a crash leaves the state before it or the state after it.
"""

from __future__ import annotations

import difflib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adapters.server import Artefact, Served
from adapters.signature import Signature
from gateway.contract.growth import grown
from gateway.contract.lines import Line
from gateway.contract.model import Contract
from gateway.contract.names import check_model_name, model_key
from gateway.database import transaction
from gateway.registry_schema import prepare
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
    """No model of this name was ever deployed. `nearest`: the names that are most like it."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.nearest = nearest_names(name, known)
        if not known:
            hint = "no model is deployed yet"
        elif self.nearest:
            hint = f"did you mean {', '.join(self.nearest)}?"
        else:
            shown = ", ".join(known[:_MOST_SHOWN])
            hint = f"known models: {shown}" + (f" and {len(known) - _MOST_SHOWN} more" * (len(known) > _MOST_SHOWN))
        super().__init__(f"there is no model {name!r}; {hint}")


class UnknownVersion(RegistryError):
    """The model has no version of this number."""

    def __init__(self, model: str, number: int, known: Sequence[int]) -> None:
        super().__init__(
            f"model {model!r} has no version {number}; it has {', '.join(map(str, known)) or 'none'}",
        )
        self.model = model
        self.number = number


class UnknownLine(RegistryError):
    """The model has no API of this major."""

    def __init__(self, line: Line, majors: Sequence[int]) -> None:
        super().__init__(
            f"model {line.model!r} has no API major {line.major}; it has {', '.join(map(str, majors)) or 'none yet'}"
        )


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

    `contract` is the public API this version answers, with the model's locked names and numbers. `served` is set for
    a version that was adopted: the inference server's own name of it. It has no file then, and `size` is 0.
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
    served: Served | None = None

    @property
    def line(self) -> Line:
        """The routing line whose callers it can answer."""
        return Line(self.model, self.contract.major)

    @property
    def artefact(self) -> Artefact:
        """The version as the inference servers take it."""
        return Artefact(self.model, self.number, self.path, self.digest, self.signature, self.served)


@dataclass(frozen=True, slots=True)
class RoutingLine:
    """Where the traffic of one API major of a model goes.

    `previous` was stable before, until `stable_since` (seconds since the epoch), and is kept loaded for an undo.
    """

    line: Line
    stable: int | None = None
    candidate: int | None = None
    previous: int | None = None
    stable_since: float | None = None

    @property
    def routed(self) -> frozenset[int]:
        """The versions that must be loaded: stable, candidate, and the previous one while an undo may want it."""
        return frozenset(n for n in (self.stable, self.candidate, self.previous) if n is not None)


@dataclass(frozen=True, slots=True)
class Model:
    """One model. `lines` are its routing lines, by API major; the first comes into being with the first version."""

    name: str
    key: str
    created_at: float
    lines: tuple[RoutingLine, ...]


_WHERE_LINE = "WHERE model = ? AND major = ?"

_MOST_SHOWN = 10
"""Names in a message; there may be thousands."""


def nearest_names(name: str, known: Sequence[str]) -> tuple[str, ...]:
    """At most three of the known names that a person may have meant, the nearest first."""
    return tuple(difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6))


class Registry:
    """Models, versions, contracts and routing state.

    `connection` comes from `gateway.database.open_database`; the tables are made here if they are missing, and
    brought to today's form if an earlier Penstock made them.
    `artefact_path` says where the file of a digest is (`ArtefactStore.path_of`), so that a data directory can move.
    """

    def __init__(self, *, connection: sqlite3.Connection, clock: Clock, artefact_path: Callable[[str], Path]) -> None:
        self._db = connection
        self._artefact_path = artefact_path
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[tuple[object, ...], Version]] = {}
        prepare(connection)

    # Reading

    def models(self) -> tuple[Model, ...]:
        """Every model, by name."""
        lines = _by_model(self.lines())
        rows = self._db.execute("SELECT * FROM models ORDER BY name")
        return tuple(_model(row, lines.get(row["name"], ())) for row in rows)

    def find_model(self, name: str) -> Model | None:
        row = self._db.execute("SELECT * FROM models WHERE name = ?", (name,)).fetchone()
        return None if row is None else _model(row, self._lines("WHERE model = ?", name))

    def model(self, name: str) -> Model:
        """Raises UnknownModel."""
        found = self.find_model(name)
        if found is None:
            raise self.unknown(name)
        return found

    def lines(self) -> tuple[RoutingLine, ...]:
        """Every routing line, by model and API major."""
        return self._lines()

    def staged(self) -> tuple[RoutingLine, ...]:
        """The routing lines that have a candidate."""
        return self._lines("WHERE candidate IS NOT NULL")

    def line(self, name: str) -> RoutingLine:
        """The routing line of this name: `digits`, `digits@2`. Raises BadLineName, UnknownModel, UnknownLine."""
        line = Line.parse(name)
        model = self.model(line.model)
        for found in model.lines:
            if found.line == line:
                return found
        raise self.unknown_line(line)

    def unknown(self, name: str) -> UnknownModel:
        """The error for a model that is not there."""
        return UnknownModel(name, [known for known in self.names() if known != name])

    def unknown_line(self, line: Line) -> UnknownLine:
        """The error for an API major that is not there."""
        return UnknownLine(line, sorted(lock.major for lock in self.locks(line.model)))

    def names(self) -> tuple[str, ...]:
        """The names of all models."""
        return tuple(str(row["name"]) for row in self._db.execute("SELECT name FROM models ORDER BY name"))

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

    def adopted(self) -> tuple[Served, ...]:
        """The server's names of all versions that were adopted."""
        rows = self._db.execute("SELECT served_name, served_version FROM versions WHERE served_name IS NOT NULL")
        return tuple(Served(row["served_name"], row["served_version"]) for row in rows)

    def locked_contract(self, model: str, major: int = 1) -> Contract | None:
        """The contract that callers of this API major rely on; None before the first version was published."""
        row = self._db.execute(
            "SELECT contract FROM contracts WHERE model = ? AND major = ?", (model, major)
        ).fetchone()
        return None if row is None else Contract.from_json(json.loads(row["contract"]))

    def locks(self, model: str) -> tuple[Contract, ...]:
        """The locked contracts of all majors of a model, the newest major first."""
        rows = self._db.execute("SELECT contract FROM contracts WHERE model = ? ORDER BY major DESC", (model,))
        return tuple(Contract.from_json(json.loads(row["contract"])) for row in rows)

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
        served: Served | None = None,
    ) -> Version:
        """Add a version (and the model with its first one) in state REGISTERED.

        `number` None takes the next one above all there ever were. `served` is the server's own name of an adopted
        version. The version's routing line comes into being with the first version of its major. Registering the same
        bytes again returns the version they already are. Raises as `find_same`.
        """
        now = self._clock.now()
        with transaction(self._db):
            same = self.find_same(model=model, number=number, digest=digest)
            if same is not None:
                return same
            self._db.execute(
                "INSERT OR IGNORE INTO models (name, key, created_at) VALUES (?, ?, ?)", (model, model_key(model), now)
            )
            self._db.execute("INSERT OR IGNORE INTO lines (model, major) VALUES (?, ?)", (model, contract.major))
            if number is None:
                row = self._db.execute("SELECT max(number) AS last FROM versions WHERE model = ?", (model,)).fetchone()
                number = (row["last"] or 0) + 1
            self._db.execute(
                "INSERT INTO versions (model, number, digest, size, signature, contract, state, reason, "
                "created_at, served_name, served_version) VALUES (?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?)",
                (
                    model,
                    number,
                    digest,
                    size,
                    json.dumps(signature.to_json()),
                    json.dumps(contract.to_json()),
                    VersionState.REGISTERED,
                    now,
                    served.name if served else None,
                    served.version if served else None,
                ),
            )
        return self.version(model, number)

    def set_state(self, model: str, number: int, state: VersionState, reason: str = "") -> None:
        """Record how far a version has come. Raises UnknownModel, UnknownVersion."""
        self.version(model, number)
        self._db.execute(
            "UPDATE versions SET state = ?, reason = ? WHERE model = ? AND number = ?", (state, reason, model, number)
        )

    def set_candidate(self, line: Line, candidate: int | None, contract: Contract | None = None) -> None:
        """Record which version of a line is being rolled out; None for none. Raises UnknownModel, UnknownLine.

        `contract` replaces the candidate's own: the lock may have grown since the version was registered.
        """
        self.line(line.name)
        with transaction(self._db):
            self._db.execute(f"UPDATE lines SET candidate = ? {_WHERE_LINE}", (candidate, line.model, line.major))
            if contract is not None:
                self._db.execute(
                    "UPDATE versions SET contract = ? WHERE model = ? AND number = ?",
                    (json.dumps(contract.to_json()), line.model, candidate),
                )

    def set_stable(self, model: str, number: int) -> None:
        """Make a version the stable one of its line; the old one becomes `previous`. A no-op when it is stable already.

        Its contract is locked from here on: what callers were served, they can rely on.
        Raises UnknownModel, UnknownVersion.
        """
        version = self.version(model, number)
        line = version.line
        with transaction(self._db):
            before = self.line(line.name)
            if before.stable == number:
                return
            self._db.execute(
                "UPDATE lines SET stable = ?, candidate = NULLIF(candidate, ?), previous = ?, stable_since = ? "
                f"{_WHERE_LINE}",
                (number, number, before.stable, self._clock.now(), line.model, line.major),
            )
            lock = grown(self.locked_contract(model, line.major), version.contract)
            self._db.execute(
                "INSERT INTO contracts (model, major, contract, locked_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (model, major) DO UPDATE SET contract = excluded.contract",
                (model, lock.major, json.dumps(lock.to_json()), self._clock.now()),
            )

    def forget_previous(self, model: str, number: int) -> None:
        """Stop keeping this version for an undo; nothing happens when it is no line's previous one."""
        self._db.execute("UPDATE lines SET previous = NULL WHERE model = ? AND previous = ?", (model, number))

    def restore(self, before: RoutingLine) -> None:
        """Put a line's routing state back to what it was, after the data plane refused a change."""
        self._db.execute(
            f"UPDATE lines SET stable = ?, candidate = ?, previous = ?, stable_since = ? {_WHERE_LINE}",
            (
                before.stable,
                before.candidate,
                before.previous,
                before.stable_since,
                before.line.model,
                before.line.major,
            ),
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

    def _lines(self, where: str = "", *parameters: str) -> tuple[RoutingLine, ...]:
        rows = self._db.execute(f"SELECT * FROM lines {where} ORDER BY model, major", parameters)
        return tuple(_line(row) for row in rows)

    def _version(self, row: sqlite3.Row) -> Version:
        """Reading a contract costs far more than seeing that it is the one read last time."""
        key, content = (row["model"], row["number"]), tuple(row)
        known = self._known.get(key)
        if known is None or known[0] != content:
            known = self._known[key] = content, self._read_version(row)
        return known[1]

    def _read_version(self, row: sqlite3.Row) -> Version:
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
            served=Served(row["served_name"], row["served_version"]) if row["served_name"] else None,
        )


def _model(row: sqlite3.Row, lines: Sequence[RoutingLine]) -> Model:
    return Model(name=row["name"], key=row["key"], created_at=row["created_at"], lines=tuple(lines))


def _by_model(lines: Iterable[RoutingLine]) -> Mapping[str, list[RoutingLine]]:
    grouped: dict[str, list[RoutingLine]] = {}
    for line in lines:
        grouped.setdefault(line.line.model, []).append(line)
    return grouped


def _line(row: sqlite3.Row) -> RoutingLine:
    return RoutingLine(
        line=Line(row["model"], row["major"]),
        stable=row["stable"],
        candidate=row["candidate"],
        previous=row["previous"],
        stable_since=row["stable_since"],
    )
