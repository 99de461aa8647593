"""Run by test_clients where tritonclient is: HOST:PORT of gRPC and of HTTP, a model with distance and carrier."""

import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException


def main(target: str, address: str, model: str) -> None:
    ask_grpc(target, model)
    ask_http(address, model)


def ask_http(address: str, model: str) -> None:
    """Tensors go as bytes behind the JSON, unless told otherwise."""
    client = over_http.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.get_server_metadata()["name"] == "stream-app"
    assert client.get_model_metadata(model)["inputs"][0]["name"] == "distance"
    assert client.get_model_repository_index()[0]["state"] == "READY"
    for binary in (True, False):
        distance = over_http.InferInput("distance", [2, 1], "FP32")
        distance.set_data_from_numpy(np.array([[2.0], [4.0]], np.float32), binary_data=binary)
        carrier = over_http.InferInput("carrier", [2, 1], "BYTES")
        carrier.set_data_from_numpy(np.array([["UA"], ["B6"]], object), binary_data=binary)
        wanted = [over_http.InferRequestedOutput(name, binary_data=binary) for name in ("scores", "label")]
        for outputs in (wanted, None):
            answer = client.infer(model, [distance, carrier], request_id="x7", outputs=outputs)
            assert answer.as_numpy("scores").shape == (2, 2)
            assert [str(np.asarray(v, dtype="S"), "utf8") for v in answer.as_numpy("label")] == ["late", "late"]
            assert answer.get_response()["id"] == "x7"
    refused(lambda: client.infer("nothing", [distance]), "404", "there is no model 'nothing'")


def ask_grpc(target: str, model: str) -> None:
    client = triton.InferenceServerClient(target)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, "1")
    assert not client.is_model_ready(model, "2")
    assert client.get_server_metadata().name == "stream-app"
    said = client.get_model_metadata(model)
    assert [i.name for i in said.inputs] == ["distance", "hour", "carrier", "flight"]
    assert client.get_model_repository_index().models[0].state == "READY"

    distance = triton.InferInput("distance", [2, 1], "FP32")
    distance.set_data_from_numpy(np.array([[2.0], [np.nan]], np.float32))
    carrier = triton.InferInput("carrier", [2, 1], "BYTES")
    carrier.set_data_from_numpy(np.array([["UA"], ["B6"]], object))
    wanted = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("scores")]
    answer = client.infer(model, [distance, carrier], request_id="x7", outputs=wanted)
    scores = answer.as_numpy("scores")
    assert scores.shape == (2, 2)
    assert np.allclose(scores.sum(axis=1), 1.0)
    assert scores[0, 1] > scores[1, 1]
    assert answer.as_numpy("label").tolist() == [b"late", b"late"]
    assert answer.get_response().id == "x7"

    matrix = triton.InferInput("features", [1, 4], "FP32")
    matrix.set_data_from_numpy(np.array([[2.0, 5.0, 3.0, np.nan]], np.float32))
    assert client.infer(model, [matrix], model_version="1").as_numpy("scores").shape == (1, 2)
    with_timeout = client.infer(model, [matrix], client_timeout=20.0, priority=1, parameters={"a": 1.5})
    assert with_timeout.as_numpy("label").shape == (1,)

    refused(lambda: client.infer("nothing", [matrix]), "StatusCode.NOT_FOUND", "there is no model 'nothing'")
    refused(lambda: client.infer(model, [matrix], model_version="9"), "StatusCode.NOT_FOUND", "'9'")
    refused(lambda: client.infer(model, [distance, matrix]), "StatusCode.INVALID_ARGUMENT", "as many rows")
    refused(lambda: client.load_model(model), "StatusCode.FAILED_PRECONDITION", "models log")


def refused(call, status: str, text: str) -> None:
    try:
        answer = call()
    except InferenceServerException as error:
        if (error.status(), text in error.message()) != (status, True):
            raise
    else:
        raise AssertionError(f"answered {answer}, wanted {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
