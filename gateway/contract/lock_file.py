"""Lock files: the contracts that callers rely on, as YAML that a person commits and a review reads.

Written by `penstock api lock`; read by `penstock api check` and `penstock deploy --lock`. One file holds any number of
models, sorted, with nothing in it that changes by itself (no dates, no versions), so that a diff shows what changed
for callers and nothing else. JSON of the same structure is read as well, since JSON is YAML.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from adapters.signature import Signature
from gateway.contract.compare import Change, Verdict, compare
from gateway.contract.model import Contract, Field
from gateway.contract.names import check_model_name, model_key, service_name

FORMAT = 1

_NO_FOLDING = 10**9
"""One value per line, however long: a folded line makes a diff of two."""

_HEADER = """\
# What callers of these models rely on: field names and numbers never change their meaning. Made by `penstock api lock`;
# `penstock api check FILE` compares it with what is served, or with a model file before it is deployed.
"""


class BadLock(ValueError):
    """The text is no lock file; the message says where and why."""


def lock_text(contracts: Iterable[Contract]) -> str:
    """The lock file of these contracts; equal contracts give equal text."""
    models: dict[str, dict[str, Any]] = {}
    for contract in sorted(contracts, key=lambda c: (c.model, c.major)):
        models.setdefault(contract.model, {})[f"v{contract.major}"] = _written(contract)
    document = {"format": FORMAT, "models": models}
    return _HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_NO_FOLDING)


def parse_lock(text: str) -> tuple[Contract, ...]:
    """The contracts of a lock file, by model and major. Raises BadLock."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise BadLock(f"the lock file is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("models"), dict):
        raise BadLock("the lock file has no `models`: expected a file made by `penstock api lock`")
    if document.get("format") != FORMAT:
        raise BadLock(f"the lock file has format {document.get('format')!r}: expected {FORMAT}")
    found = []
    for model, majors in document["models"].items():
        if not isinstance(majors, dict):
            raise BadLock(f"models.{model}: expected API majors (v1, v2 ...), received {type(majors).__name__}")
        found += [_read(model, major, value) for major, value in majors.items()]
    return tuple(sorted(found, key=lambda c: (c.model, c.major)))


def signature_of(contract: Contract) -> Signature:
    """A signature that gives this contract: what the contract says of its version."""
    return Signature(
        inputs=contract.takes,
        outputs=contract.gives,
        max_batch_size=contract.max_rows if contract.batching else 0,
        decoupled=contract.decoupled,
        obstacles=contract.obstacles,
    )


def compare_contracts(locked: Contract, served: Contract) -> Verdict:
    """What callers who rely on `locked` meet at `served`: also where only names or numbers of fields differ."""
    verdict = compare(locked, signature_of(served))
    numbering = (
        *_numbering("inputs", locked.inputs, served.inputs),
        *_numbering("outputs", locked.outputs, served.outputs),
    )
    return Verdict(verdict.api, (*verdict.changes, *numbering))


def _numbering(side: str, locked: Sequence[Field], served: Sequence[Field]) -> Iterator[Change]:
    by_name = {field.name: field for field in served}
    for field in locked:
        other = by_name.get(field.name)
        if other is None:
            continue
        for was, now in ((_declared(field), _declared(other)), (_shape_declared(field), _shape_declared(other))):
            if was and now and was != now:
                yield Change(f"{side}.{field.name}", f"field was `{was}`, is `{now}`: messages are misread", True)


def _declared(field: Field) -> str:
    return f"{field.proto_type} {field.proto_name} = {field.number}"


def _shape_declared(field: Field) -> str:
    shape = field.shape_field
    return f"repeated sfixed64 {shape.proto_name} = {shape.number}" if shape else ""


def _written(contract: Contract) -> dict[str, Any]:
    """The contract without what follows from its name and major."""
    value = contract.to_json()
    for derived in ("model", "key", "service", "major"):
        del value[derived]
    for side in ("inputs", "outputs"):
        value[side] = [_flat(field) for field in value[side]]
    return value


def _flat(field: Mapping[str, Any]) -> dict[str, Any]:
    """A field with its tensor's name in front, so that a diff says which one changed."""
    tensor = dict(field["tensor"])
    return {"name": tensor.pop("name"), **{k: v for k, v in field.items() if k != "tensor"}, "tensor": tensor}


def _read(model: object, major: object, value: object) -> Contract:
    where = f"models.{model}.{major}"
    if not isinstance(model, str) or not isinstance(major, str) or not isinstance(value, dict):
        raise BadLock(f"{where}: expected the contract of one API major")
    number = major.removeprefix("v")
    if not (major.startswith("v") and number.isascii() and number.isdigit() and 0 < int(number) < 10**9):
        raise BadLock(f"{where}: expected an API major such as v1")
    try:
        check_model_name(model)
        fields = {
            side: [{**f, "tensor": {"name": f["name"], **f["tensor"]}} for f in value[side]]
            for side in ("inputs", "outputs")
        }
        named = {"model": model, "key": model_key(model), "service": service_name(model), "major": int(number)}
        return Contract.from_json({**value, **fields, **named})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadLock(f"{where}: {what}") from error


def of_model(contracts: Iterable[Contract], model: str) -> tuple[Contract, ...]:
    """Those of one model. Raises BadLock when there is none."""
    contracts = tuple(contracts)
    found = tuple(contract for contract in contracts if contract.model == model)
    if not found:
        known = ", ".join(sorted({c.model for c in contracts})) or "no model"
        raise BadLock(f"the lock file has no model {model!r}; it has {known}")
    return found


class _Dumper(yaml.SafeDumper):
    """Lists of numbers (shapes) on one line, everything else a line each; nothing by reference."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Unicode's further line ends would be folded to blanks in any style but this one, which escapes them.
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        flow = all(isinstance(item, int) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flow)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_str)
