"""Whom bench.serving measures the server against: the same requests and responses, a process of its own.

    python -m bench._serving_peers noop|torch PORT

noop    parses the request, says the same whatever it is, on uvloop and with SCHED_BATCH as our server: what gRPC and
        protobuf alone cost, the limit
torch   what one writes first: lists -> tensors -> an eager MLP 64-64 with embeddings -> softmax; it has no recent rates
        (they are zeros), no metrics, no versions, no authentication, and one thread, with which it is fastest
"""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import torch
import uvloop
from torch import nn

from models.shapes import dense_columns
from models.spec import ModelSpec, read_spec
from stream_app.serve import prefer_throughput
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

SPEC = "examples/flights/model.toml"
CLASSES = ("0", "1")


def response_of(request: pb.PredictRequest, scores: np.ndarray[Any, np.dtype[np.float32]]) -> pb.PredictResponse:
    """As our server says scores (B, 2): per row, or as columns if columns were asked."""
    response = pb.PredictResponse(
        model="flights",
        version=1,
        version_id="0" * 16,
        epoch=1,
        variant="fp32",
        staleness=pb.Staleness(version_age_s=1.5, log_age_s=0.1),
    )
    if request.HasField("columns"):
        response.scores.CopyFrom(pb.Scores(classes=CLASSES, values=scores.tobytes()))
    else:
        for row in scores.tolist():
            said = dict(zip(CLASSES, row, strict=True))
            response.predictions.add(scores=said, label=CLASSES[int(row[1] > row[0])])
    return response


class Noop(pb_grpc.StreamModelServicer):
    """Its answers are made once for each number of rows."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, int], pb.PredictResponse] = {}

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        columns = request.HasField("columns")
        rows = request.columns.rows if columns else len(request.rows)
        made = self._made.get((columns, rows))
        if made is None:
            made = self._made[columns, rows] = response_of(request, np.full((rows, 2), 0.5, np.float32))
        return made

    async def PredictStream(
        self, requests: AsyncIterator[pb.PredictRequest], context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        async for request in requests:
            yield pb.PredictStreamResponse(response=await self.Predict(request, context))


class Network(nn.Module):
    """An MLP 64-64 of the flights' features."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(f.size, f.dim) for f in spec.features.categorical.values())
        inputs = dense_columns(spec) + len(spec.features.numeric)
        inputs += sum(f.dim for f in spec.features.categorical.values())
        self.layers = nn.Sequential(
            nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(CLASSES))
        )

    def forward(self, numeric: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, 2) of numeric (B, N + R), NaN is missing, and categories (B, C)."""
        embedded = [embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings)]
        x = torch.cat([torch.nan_to_num(numeric), torch.isnan(numeric[:, :16]).float(), *embedded], dim=1)
        return torch.softmax(self.layers(x), dim=1)


class Torch(Noop):
    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        spec = read_spec(SPEC)
        self._network = Network(spec).eval()
        self._numeric, self._rates = list(spec.features.numeric), dense_columns(spec) - len(spec.features.numeric)
        self._sizes = {name: f.size for name, f in spec.features.categorical.items()}

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        read = self._columns if request.HasField("columns") else self._rows
        with torch.inference_mode():
            return response_of(request, self._network(*read(request)).numpy())

    def _rows(self, request: pb.PredictRequest) -> tuple[torch.Tensor, torch.Tensor]:
        numeric, categories = [], []
        for row in request.rows:
            given = row.features
            values = [given[name].number if name in given else float("nan") for name in self._numeric]
            numeric.append(values + [0.0] * self._rates)
            texts = ((given[name].text if name in given else "", size) for name, size in self._sizes.items())
            categories.append([zlib.crc32(text.encode()) % size for text, size in texts])
        return torch.tensor(numeric), torch.tensor(categories)

    def _columns(self, request: pb.PredictRequest) -> tuple[torch.Tensor, torch.Tensor]:
        given, rows = {column.name: column for column in request.columns.columns}, request.columns.rows
        missing = torch.full((rows,), float("nan"))
        numeric = [
            torch.from_numpy(np.frombuffer(given[name].numbers, "<f8").astype(np.float32)) if name in given else missing
            for name in self._numeric
        ]
        numeric += [torch.zeros(rows)] * self._rates
        categories = []
        for name, size in self._sizes.items():
            texts = ["", *given[name].texts]
            texts = [texts[i] for i in given[name].at] if given[name].at else texts[1:]
            categories.append([zlib.crc32(text.encode()) % size for text in texts])
        return torch.stack(numeric, dim=1), torch.tensor(categories).T


async def main(kind: str, port: int) -> None:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 1),))
    pb_grpc.add_StreamModelServicer_to_server({"noop": Noop, "torch": Torch}[kind](), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    limit = sys.argv[1] == "noop"
    if limit:
        prefer_throughput()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if limit else None) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
