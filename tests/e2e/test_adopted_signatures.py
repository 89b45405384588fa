"""Models that were in Triton's repository already, written by hand and not by Penstock: each gets the API that its
signature allows by `penstock adopt`, or a page that says why it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.ask_once import SEQUENCE
from gateway.contract.derive import derive
from gateway.contract.descriptor import message_classes
from gateway.contract.open_inference import calls
from gateway.contract.proto import proto_text
from gateway.contract.snippets import Gateway
from tests.e2e.running import Penstock

pytestmark = pytest.mark.e2e

BACKEND = """
import numpy as np
import triton_python_backend_utils as pb_utils
"""

SCORES = f"""{BACKEND}

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            bias = pb_utils.get_input_tensor_by_name(request, "bias")
            scores = x * 2 if bias is None else x * 2 + bias.as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("scores", scores)]))
        return answers
"""

TRANSPOSED = f"""{BACKEND}

class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", np.ascontiguousarray(a.T))]) for a in arrays]
"""

COUNTED = f"""{BACKEND}

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            count = int(pb_utils.get_input_tensor_by_name(request, "count").as_numpy()[0])
            sender = request.get_response_sender()
            for i in range(count):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("i", np.array([i], np.int64))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

FP32, INT64 = Datatype.FP32, Datatype.INT64
X = TensorSpec("x", FP32, (3,))

CODE: Mapping[str, str] = {"scores": SCORES, "transposed": TRANSPOSED, "counted": COUNTED, "stateful": TRANSPOSED}

CONFIGS: Mapping[str, str] = {
    "scores": """
        max_batch_size: 4
        input { name: "x" data_type: TYPE_FP32 dims: 3 }
        input { name: "bias" data_type: TYPE_FP32 dims: 3 optional: true }
        output { name: "scores" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }
    """,
    "transposed": """
        input { name: "x" data_type: TYPE_INT64 dims: [-1, -1] }
        output { name: "y" data_type: TYPE_INT64 dims: [-1, -1] }
    """,
    "counted": """
        model_transaction_policy { decoupled: true }
        input { name: "count" data_type: TYPE_INT64 dims: 1 } output { name: "i" data_type: TYPE_INT64 dims: 1 }
    """,
    "stateful": """
        max_batch_size: 4 sequence_batching { }
        input { name: "x" data_type: TYPE_FP32 dims: 3 } output { name: "y" data_type: TYPE_FP32 dims: 3 }
    """,
}

SIGNATURES: Mapping[str, Signature] = {
    "scores": Signature(
        (X, TensorSpec("bias", FP32, (3,), optional=True)),
        (TensorSpec("scores", FP32, (3,), labels=("cat", "dog", "bird")),),
        4,
    ),
    "transposed": Signature(
        (TensorSpec("x", INT64, (DYNAMIC, DYNAMIC)),), (TensorSpec("y", INT64, (DYNAMIC, DYNAMIC)),)
    ),
    "counted": Signature((TensorSpec("count", INT64, (1,)),), (TensorSpec("i", INT64, (1,)),), decoupled=True),
    "stateful": Signature((X,), (TensorSpec("y", FP32, (3,)),), 4, obstacles=(SEQUENCE,)),
}


@pytest.fixture(scope="module")
def adopted(penstock: Penstock) -> Penstock:
    for name, config in CONFIGS.items():
        folder = penstock.data_dir / "repository" / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(CODE[name], encoding="utf-8")
        (folder / "config.pbtxt").write_text(f'backend: "python"\n{dedent(config)}', encoding="utf-8")
        (folder / "labels.txt").write_text("cat\ndog\nbird\n", encoding="utf-8")
        done = penstock.cli("adopt", name)
        assert done.returncode == 0, done.stdout + done.stderr
    return penstock


def predict(penstock: Penstock, name: str, body: Any) -> httpx.Response:
    return httpx.post(f"{penstock.url}/v1/models/{name}:predict", json=body, timeout=30)


@pytest.mark.parametrize("name", ["scores", "transposed", "counted"])
def test_the_api_is_the_one_of_its_signature(adopted: Penstock, name: str) -> None:
    served = httpx.get(f"{adopted.url}/v1/models/{name}.proto").raise_for_status().text
    assert served == proto_text(derive(name, SIGNATURES[name]))
    plain = httpx.get(f"{adopted.url}/v1/models/{name}.proto?annotations=false").raise_for_status().text
    assert plain == proto_text(derive(name, SIGNATURES[name]), annotations=False)


def test_an_optional_input_may_be_left_out(adopted: Penstock) -> None:
    with_bias = {"instances": [{"x": [1, 2, 3], "bias": [10, 20, 30]}, {"x": [0, 0, 0], "bias": [1, 1, 1]}]}
    assert predict(adopted, "scores", with_bias).json() == {
        "predictions": [{"scores": [12, 24, 36]}, {"scores": [1, 1, 1]}]
    }
    without = {"instances": [{"x": [1, 2, 3]}, {"x": [0, 0, 0]}]}
    assert predict(adopted, "scores", without).json() == {"predictions": [{"scores": [2, 4, 6]}, {"scores": [0, 0, 0]}]}
    mixed = predict(adopted, "scores", {"instances": [{"x": [1, 2, 3], "bias": [1, 1, 1]}, {"x": [0, 0, 0]}]})
    assert (mixed.status_code, mixed.json()["details"][0]["reason"]) == (400, "MISSING_FIELD")


def test_the_class_names_of_its_label_file_are_in_the_documents(adopted: Penstock) -> None:
    document = httpx.get(f"{adopted.url}/v1/models/scores/openapi.json").json()
    scores = document["components"]["schemas"]["scores.v1.Prediction"]["properties"]["scores"]
    assert scores["x-labels"] == ["cat", "dog", "bird"]
    assert "0 cat, 1 dog, 2 bird" in httpx.get(f"{adopted.url}/docs/scores").text


def test_shapes_that_change_come_back_nested(adopted: Penstock) -> None:
    assert predict(adopted, "transposed", {"x": [[1, 2, 3], [4, 5, 6]]}).json() == {"y": [[1, 4], [2, 5], [3, 6]]}
    flat = {"x": [1, 2, 3, 4, 5, 6], "x_shape": [2, 3]}
    assert predict(adopted, "transposed", flat).json() == {"y": [[1, 4], [2, 5], [3, 6]]}


def test_answers_of_a_decoupled_model_come_as_a_stream(adopted: Penstock) -> None:
    contract = derive("counted", SIGNATURES["counted"])
    messages = message_classes(contract)
    with grpc.insecure_channel(adopted.authority) as channel:
        call = channel.unary_stream(
            contract.predict_grpc_path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.response.FromString,
        )
        for count in (0, 1, 5):
            answers = list(call(messages.request(count=[count]), timeout=30))
            assert [list(answer.i) for answer in answers] == [[i] for i in range(count)]
    refused = predict(adopted, "counted", {"count": [1]})
    assert (refused.status_code, refused.json()["status"]) == (501, "UNIMPLEMENTED")


def test_the_stream_that_the_page_shows_works(adopted: Penstock, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = calls(derive("counted", SIGNATURES["counted"]), Gateway(adopted.authority))
    page = httpx.get(f"{adopted.url}/docs/counted").raise_for_status().text
    assert "start_stream" in page
    exec(snippet.text.replace("np.full([1], 0,", "np.full([1], 2,"), {})
    assert capsys.readouterr().out == "i [0]\ni [1]\n"


def test_a_model_that_cannot_be_typed_says_why_and_is_served(adopted: Penstock) -> None:
    page = httpx.get(f"{adopted.url}/docs/stateful").raise_for_status().text
    assert "it keeps state from call to call" in page
    assert httpx.get(f"{adopted.url}/v1/models/stateful.proto").status_code == 404
    assert "/v1/models/stateful:predict" not in httpx.get(f"{adopted.url}/openapi.json").json()["paths"]
    (listed,) = [m for m in httpx.get(f"{adopted.url}/v1/models").json()["models"] if m["name"] == "stateful"]
    assert listed["obstacles"] == [SEQUENCE]
    refused = predict(adopted, "stateful", {"instances": [{"x": [1, 2, 3]}]})
    assert (refused.status_code, refused.json()["details"][0]["reason"]) == (501, "NO_TYPED_API")
    assert "it keeps state" in refused.json()["message"]
    tensor = triton_grpc.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
    with triton_grpc.InferenceServerClient(adopted.authority) as client:
        answer = client.infer("stateful", [tensor], sequence_id=7, sequence_start=True, sequence_end=True)
    assert answer.as_numpy("y").ravel().tolist() == [1, 2, 3]
