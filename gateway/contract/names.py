"""Names: which model names are allowed, and how names become identifiers of protobuf and of the target languages.

Pure functions, used when a model is registered (`check_model_name`) and when its contract is derived
(`service_name`, `proto_names`). What a name means to Envoy or to an inference server is left to those folders.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

MODEL_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
MAX_MODEL_NAME = 63
"""Characters; as long as a DNS label, so that a model's name can be one."""

MESSAGE_NAMES = frozenset({"PredictRequest", "PredictResponse", "Instance", "Prediction"})
"""The messages of every generated package; a service cannot have one of these names."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LANGUAGE_WORDS = _words(
    # Field names that protobuf, Python, Java, Kotlin, C++, C#, Go, JavaScript, TypeScript, Swift or Rust read as
    # their own words. Most generators work around their own language's, each in its own way; a name that needs no
    # workaround is the same in every language.
    """
    abstract alignas alignof and any as asm assert associatedtype async auto await base become bool boolean box break
    byte case catch chan char checked class concept const constexpr continue crate debugger decimal decltype def
    default defer deinit del delegate delete do double dyn elif else enum event except explicit export extends
    extension extern fallthrough false fileprivate final finally fixed fixed32 fixed64 float fn for foreach friend from
    fun func function global go goto guard if impl implements implicit import in init inline inout instanceof int
    int32 int64 interface internal is lambda let lock long loop macro map match message mod module move mut mutable
    namespace native new nil noexcept none nonlocal not null nullptr object oneof open operator option optional or out
    override package params pass priv private protected protocol pub public raise range readonly ref register repeated
    required requires reserved rethrows return returns rpc sbyte sealed select self service sfixed32 sfixed64 short
    signed sint32 sint64 sizeof stackalloc static str strictfp string struct subscript super switch synchronized
    syntax template this thread_local throw throws to trait transient true try type typealias typedef typeid typename
    typeof uint uint32 uint64 ulong unchecked union unsafe unsigned unsized use ushort using val var virtual void
    volatile when where while with xor yield
    None True False
    """
)

_MEMBERS_AND_MACROS = _words(
    # Members of Python's generated messages, which a field of the same name would hide.
    """
    ByteSize Clear ClearExtension ClearField CopyFrom DESCRIPTOR DiscardUnknownFields Extensions
    FindInitializationErrors FromString HasExtension HasField IsInitialized ListFields MergeFrom MergeFromString
    ParseFromString RegisterExtension SerializePartialToString SerializeToString SetInParent UnknownFields WhichOneof
    """
    # Members of C++'s, and macros of its standard library: protoc makes code of these that does not compile.
    """
    default_instance descriptor internal_default_instance
    EOF INFINITY NAN NULL errno linux offsetof stderr stdin stdout unix
    """
)

_RESERVED = _LANGUAGE_WORDS | _MEMBERS_AND_MACROS

_PACKAGE_WORDS = _words(
    # Words of C++, Java, Kotlin and Python. Other languages put a package into another form first.
    """
    abstract alignas alignof and as asm assert async auto await bitand bitor bool boolean break byte case catch char
    class compl concept const constexpr continue decltype def default del delete do double elif else enum except
    explicit export extends extern false final finally float for friend from fun global goto if implements import in
    inline instanceof int interface is lambda long mutable namespace native new noexcept nonlocal not null nullptr
    object operator or package pass private protected public raise register requires return short signed sizeof static
    strictfp struct super switch synchronized template this throw throws transient true try typealias typedef typeid
    typename typeof union unsigned using val var virtual void volatile when while with xor yield
    and_eq char16_t char32_t char8_t co_await co_return co_yield const_cast consteval constinit dynamic_cast not_eq
    or_eq reinterpret_cast static_assert static_cast thread_local wchar_t xor_eq
    """
    # Macros of C++ compilers, and the namespace that generated code looks names up in.
    "linux std unix"
)


class BadModelName(ValueError):
    """The name cannot be a model's; the message says the rule and suggests one that can."""


def check_model_name(name: str) -> str:
    """The name itself when it is allowed; raises BadModelName otherwise."""
    if len(name) <= MAX_MODEL_NAME and MODEL_NAME.fullmatch(name):
        return name
    if len(name) > MAX_MODEL_NAME:
        problem = f"it has {len(name)} characters, at most {MAX_MODEL_NAME} are allowed"
    else:
        problem = "use lower-case letters, digits and single '-' or '_' between them, and begin with a letter"
    suggestion = suggest_model_name(name)
    hint = f"; try {suggestion!r}" if suggestion else ""
    raise BadModelName(f"model name {name!r} is not allowed: {problem}{hint}")


def model_key(name: str) -> str:
    """The model's name as an identifier: 'digits-v2' -> 'digits_v2'. Two models with one key cannot coexist."""
    return name.replace("-", "_")


def package_word(key: str) -> str:
    """The model's part of the gRPC package: its key, but 'class' -> 'class_', which every language can compile.

    No key ends with '_', so the key can be told from it.
    """
    return f"{key}_" if key in _PACKAGE_WORDS else key


def service_name(name: str) -> str:
    """The model's gRPC service: 'digits-v2' -> 'DigitsV2'; 'prediction' -> 'PredictionService' (a message's name)."""
    camel = "".join(word.capitalize() for word in re.split(r"[-_]", name))
    return f"{camel}Service" if camel in MESSAGE_NAMES else camel


def proto_names(tensors: Sequence[str], locked: Mapping[str, str] | None = None) -> dict[str, str]:
    """Legal, unique proto field names for the tensors of one message, by tensor name.

    `locked` holds names published before; they are kept as they are. Otherwise a tensor keeps its own name where
    that is a legal identifier, before any that must be changed chooses. Names also stay apart without regard to case
    and underscores, because protoc refuses two fields whose JSON names clash and Java makes one getter of both; and
    none is what another's accessor is called in C++, C# or Swift ('image' has an `image_size`).
    """
    chosen = {tensor: locked[tensor] for tensor in tensors if locked and tensor in locked}
    taken = _Taken((locked or {}).values())
    as_they_are = [t for t in tensors if t not in chosen and to_identifier(t) == t]
    to_change = [t for t in tensors if t not in chosen and to_identifier(t) != t]
    for tensor in (*as_they_are, *to_change):
        chosen[tensor] = taken.free(to_identifier(tensor))
        taken.add(chosen[tensor])
    return {tensor: chosen[tensor] for tensor in tensors}


def shape_names(tensors: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """The JSON names of the tensors' shapes, by tensor name: 'x' -> 'x_shape', none of them in `taken`.

    JSON knows tensors by their own names, so a shape must give way to a tensor that is called 'x_shape'.
    """
    chosen: dict[str, str] = {}
    for tensor in tensors:
        candidate, suffix = f"{tensor}_shape", 2
        while candidate in taken or candidate in chosen.values():
            candidate, suffix = f"{tensor}_shape_{suffix}", suffix + 1
        chosen[tensor] = candidate
    return chosen


def to_identifier(name: str) -> str:
    """The nearest legal field name: 'input:0' -> 'input_0', '0' -> 'tensor_0', 'größe' -> 'grosse', 'in' -> 'in_value'.

    Letters of other scripts become their code points ('温' -> 'u6e29'): ugly, but the same in every version.
    """
    plain = "".join(_ascii(c) for c in unicodedata.normalize("NFKD", name))
    words = re.sub(r"[^A-Za-z0-9_]+", "_", plain).strip("_")
    words = re.sub(r"__+", "_", words) if words != name else words
    if not words or not words[0].isalpha():
        words = f"tensor_{words}" if words else "tensor"
    return f"{words}_value" if words in _RESERVED else words


def _ascii(char: str) -> str:
    if char.isascii():
        return char
    if unicodedata.combining(char):
        return ""
    if char == "ß":
        return "ss"
    return f"_u{ord(char):04x}_" if char.isalnum() else "_"


def _clash_key(name: str) -> str:
    return name.replace("_", "").lower()


def _accessors(name: str) -> tuple[str, ...]:
    """What generated code calls its members for a field: C++ the first two, C# and Swift the last two."""
    return f"{name}_size", f"has_{name}", f"clear_{name}"


class _Taken:
    """The names of one message's fields, and of their accessors."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._members: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._names.add(_clash_key(name))
        self._members.update(map(_clash_key, _accessors(name)))

    def free(self, name: str) -> str:
        """The name itself, or with a number behind it."""
        candidate, suffix = name, 2
        while self._clashes(candidate):
            candidate, suffix = f"{name}_{suffix}", suffix + 1
        return candidate

    def _clashes(self, name: str) -> bool:
        if _clash_key(name) in self._names or _clash_key(name) in self._members:
            return True
        return any(_clash_key(member) in self._names for member in _accessors(name))


def suggest_model_name(name: str) -> str:
    """The allowed name nearest to `name`: "ResNet50.onnx" -> "res-net50-onnx"; "" when nothing of it can stay."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if c.isascii())
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", plain).lower()
    joined = re.sub(r"-?_-?", "_", re.sub(r"[^a-z0-9_]+", "-", spaced))
    joined = re.sub(r"__+", "_", joined).lstrip("-_0123456789")[:MAX_MODEL_NAME].strip("-_")
    return joined if MODEL_NAME.fullmatch(joined) else ""
