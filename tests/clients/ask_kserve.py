"""Run by test_clients where kserve is: HOST:PORT of gRPC and of HTTP, a model with distance and carrier."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(target: str, address: str, model: str) -> None:
    await ask_grpc(target, model)
    await ask_http(f"http://{address}", model)


async def ask_http(url: str, model: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, model)
    for binary in (True, False):
        matrix = InferInput("features", [1, 4], "FP32")
        matrix.set_data_from_numpy(np.array([[2.0, 5.0, 3.0, 7.0]], np.float32), binary_data=binary)
        answer = await client.infer(url, InferRequest(model, [matrix], request_id="x7"), model_name=model)
        assert (answer.id, answer.model_name) == ("x7", model)
        assert answer.outputs[0].as_numpy().shape == (1, 2)


async def ask_grpc(target: str, model: str) -> None:
    async with InferenceGRPCClient(target) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model)
        for binary in (True, False):
            matrix = InferInput("features", [1, 4], "FP32")
            matrix.set_data_from_numpy(np.array([[2.0, 5.0, 3.0, 7.0]], np.float32), binary_data=binary)
            answer = await client.infer(InferRequest(model, [matrix], request_id="x7"))
            assert (answer.id, answer.model_name, answer.model_version) == ("x7", model, "1")
            assert answer.parameters["variant"].string_param == "fp32"
            outputs = {o.name: o.as_numpy() for o in answer.outputs}
            assert outputs["scores"].shape == (1, 2)
            assert outputs["label"].tolist() in (["late"], [b"late"])
        carrier = InferInput("carrier", [2], "BYTES")
        carrier.set_data_from_numpy(np.array(["UA", "B6"], object), binary_data=False)
        answer = await client.infer(InferRequest(model, [carrier]))
        assert answer.outputs[0].as_numpy().shape == (2, 2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
