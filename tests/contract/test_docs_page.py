"""Docs pages: whole HTML, nothing from elsewhere, everything escaped; and the commands on them can be run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.contract.docs_page import index_page, model_page
from gateway.contract.examples import (
    example_inputs,
    example_proto_json,
    example_request,
    example_response,
    example_shape,
)
from gateway.contract.snippets import Gateway, snippets
from tests.clients.servers import Handler, Seen, http_server, status_json
from tests.contract.cases import CONTRACTS, UNARY

VOID = {"meta", "link", "input", "br"}
PAGES = {model: model_page(contract, gateway=Gateway()) for model, contract in CONTRACTS.items()}


class Page(HTMLParser):
    """Parses a page and keeps what the tests ask for. Fails on a tag closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.labels_for: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "label":
            self.labels_for.append(str(values["for"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        elif "src" in values or "href" in values:
            self.loaded.append(str(values.get("src") or values.get("href")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


@pytest.mark.parametrize("model", PAGES)
def test_a_page_is_whole_and_loads_nothing(model: str) -> None:
    page = Page(PAGES[model])
    assert page.loaded == ["data:,"]
    assert not re.search(r"url\(|@import|https?://(?!127\.0\.0\.1)", PAGES[model])
    assert len(page.ids) == len(set(page.ids))
    assert set(page.labels_for) <= set(page.ids)


def test_names_from_a_model_stay_text() -> None:
    page = Page(PAGES["odd-names"])
    assert "b" not in page.tags
    assert "</script><b>" in page.text["code"]
    assert "{{ braces }}" in page.text["code"]
    form_data = json.loads(page.text["script"][0])
    assert [field["name"] for field in form_data["inputs"]] == [field.name for field in CONTRACTS["odd-names"].inputs]


@pytest.mark.parametrize("model", UNARY)
def test_the_form_holds_a_request_that_works(model: str) -> None:
    page = Page(PAGES[model])
    form_data = json.loads(page.text["script"][0])
    assert form_data["path"] == f"/v1/models/{model}:predict"
    if form_data["readable"]:
        assert json.loads("".join(page.text["textarea"])) == example_request(CONTRACTS[model])
    else:
        assert "textarea" not in page.text


def test_the_page_links_to_its_documents_and_says_who_answers() -> None:
    text = model_page(CONTRACTS["iris"], gateway=Gateway(), stable=2, versions=(2, 1))
    assert {"/v1/models/iris.proto", "/v1/models/iris/openapi.json", "/docs"} <= set(Page(text).links)
    assert "Version 2 answers. Versions that can be pinned: 1, 2." in text


def test_the_index_lists_every_model() -> None:
    page = Page(index_page(CONTRACTS.values()))
    assert {f"/docs/{model}" for model in CONTRACTS} <= set(page.links)
    assert "/v1/models/untyped.proto" not in page.links


def test_an_empty_index_says_how_to_begin() -> None:
    assert "penstock deploy" in index_page([])


def test_an_untyped_model_says_why_and_shows_how_to_call_it() -> None:
    page = Page(PAGES["untyped"])
    assert any("no name" in text for text in page.text["li"])
    assert "</ul><image>" in page.text["code"]
    assert "image" not in page.tags
    assert any("tritonclient.http" in text for text in page.text["code"])
    assert any("/v2/models/untyped/infer" in text for text in page.text["code"])
    assert "form" not in page.tags


def test_a_model_that_streams_has_no_form_and_shows_the_stream() -> None:
    page = Page(PAGES["streams"])
    assert "form" not in page.tags
    assert "penstock.models.streams.v1.Streams/PredictStream" in page.text["code"]
    assert any("start_stream" in text for text in page.text["code"])


def snippet(model: str, title: str, gateway: Gateway) -> str:
    return next(s.text for s in snippets(CONTRACTS[model], gateway) if s.title == title)


@pytest.mark.parametrize("model", UNARY)
def test_the_curl_command_sends_a_whole_request(model: str) -> None:
    text = snippet(model, "curl", Gateway("gateway.test:1234", tls=True))
    if "python3 -c" in text:
        maker, text = text.split(" |\n")
        made = subprocess.run(shlex.split(maker), capture_output=True, check=True, timeout=60)
        body = json.loads(made.stdout)
        row = body["instances"][0] if CONTRACTS[model].batching else body
        for field in example_inputs(CONTRACTS[model]):
            assert shape_of(row[field.name]) == example_shape(field.tensor, CONTRACTS[model].dynamic_size)
        assert shlex.split(text)[-2:] == ["--data-binary", "@-"]
    else:
        words = shlex.split(text)
        assert json.loads(words[words.index("-d") + 1]) == example_request(CONTRACTS[model])
    assert f"https://gateway.test:1234/v1/models/{model}:predict" in shlex.split(text)


def shape_of(value: object) -> tuple[int, ...]:
    return (len(value), *shape_of(value[0])) if isinstance(value, list) else ()


def answering(model: str) -> Handler:
    """A server that takes what the model takes, and answers the example."""
    contract = CONTRACTS[model]

    def answer(seen: Seen) -> tuple[int, Any]:
        if "instances" in seen.body and not contract.batching:
            return 400, status_json(3, "instances: unknown field", "UNKNOWN_FIELD", field="instances")
        return 200, example_response(contract)

    return answer


@pytest.mark.parametrize("model", UNARY)
def test_the_python_snippet_runs_and_sends_what_the_model_takes(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(answering(model)) as server:
        exec(snippet(model, "Python", Gateway(server.address.removeprefix("http://"))), {})
    row = example_response(CONTRACTS[model])
    assert capsys.readouterr().out == f"{row['predictions'][0] if CONTRACTS[model].batching else row} 7\n"
    sent = server.seen[-1]
    assert sent.path == CONTRACTS[model].predict_http_path
    (instance,) = sent.body["instances"] if CONTRACTS[model].batching else [sent.body]
    assert list(instance) == [field.name for field in example_inputs(CONTRACTS[model])]
    for field in example_inputs(CONTRACTS[model]):
        assert shape_of(instance[field.name]) == example_shape(field.tensor, CONTRACTS[model].dynamic_size)


def test_the_grpcurl_command_sends_protos_own_json() -> None:
    words = shlex.split(snippet("every-datatype", "grpcurl", Gateway("127.0.0.1:9")))
    assert json.loads(words[words.index("-d") + 1]) == example_proto_json(CONTRACTS["every-datatype"])
    assert words[-2:] == ["127.0.0.1:9", "penstock.models.every_datatype.v1.EveryDatatype/Predict"]
