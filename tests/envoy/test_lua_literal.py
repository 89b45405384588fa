"""Data reaches Lua as it is, whatever text it holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa import luajit21

from gateway.envoy.lua_literal import lua_literal

scalars = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
data = st.recursive(
    scalars, lambda inner: st.lists(inner, min_size=1) | st.dictionaries(st.text('az "\\\n\u00e9'), inner, min_size=1)
)


def plain(value: Any) -> Any:
    """A Lua table as the list or dictionary it was."""
    if luajit21.lua_type(value) != "table":
        return value
    if set(value) == set(range(1, len(value) + 1)):
        return [plain(value[i]) for i in range(1, len(value) + 1)]
    return {key: plain(each) for key, each in value.items()}


@given(data)
def test_lua_reads_what_python_wrote(value: Any) -> None:
    assert plain(luajit21.LuaRuntime().eval(lua_literal(value))) == value


def test_the_text_is_printable_whatever_it_says() -> None:
    text = lua_literal({'na"me': ["d\u00e9j\u00e0", "\0\n\\"]})
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("value", [None, b"bytes", {1, 2}, object()])
def test_what_lua_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="expected data that Lua has too, received"):
        lua_literal([value])
