"""What is generated for the golden contracts, by file name."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.contract.docs_page import index_page, model_page
from gateway.contract.openapi import merged_document, model_document
from gateway.contract.proto import proto_text
from gateway.contract.snippets import Gateway
from tests.contract.cases import CONTRACTS, GOLDEN

FOLDER = Path(__file__).parent / "golden"


def golden_files() -> dict[str, str]:
    files: dict[str, str] = {}
    for model in GOLDEN:
        contract = CONTRACTS[model]
        if contract.typed:
            files[f"{model}.proto"] = proto_text(contract)
        files[f"{model}.openapi.json"] = _json(model_document(contract))
        files[f"{model}.html"] = model_page(contract, gateway=Gateway(), stable=2, versions=(1, 2))
    contracts = [CONTRACTS[model] for model in GOLDEN]
    files["openapi.json"] = _json(merged_document(contracts))
    files["index.html"] = index_page(contracts)
    return files


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
