"""The model that is simulated: as small as one can be, published often, learned by a ledger."""

import random

from models.spec import Blend, Categorical, Explain, Features, Label, Learner, ModelSpec, Publish, Stream
from simulation import stream
from simulation.reference import CODES


def spec(rng: random.Random) -> ModelSpec:
    """One that a seed decides."""
    return ModelSpec(
        name="m",
        task="regression",
        label=Label(name="y", wait_s=stream.WAIT_S),
        features=Features(categorical={"who": Categorical(size=CODES)}),
        stream=Stream(partitions=rng.choice((1, 2, 2, 3))),
        learner=Learner(kind="river", estimator="simulated", batch_records=rng.choice((32, 128))),
        blend=Blend(kind="none"),
        explain=Explain(pairs=1, rows_per_label=0.01),
        publish=Publish(
            every_s=rng.choice((0.4, 1.0)),
            least_s=rng.choice((0.15, 0.5)),
            share=0.5,
            keep=rng.choice((3, 20)),
            inline_bytes=rng.choice((0, 1 << 19)),
        ),
    )
