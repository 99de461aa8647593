"""What goes wrong, and when: seed -> [plan] -> world. A plan is a list, so that shrinking can leave parts of it out."""

import random
from typing import Literal, NamedTuple

Kind = Literal[
    "kill", "kill_step", "kill_point", "freeze", "stop", "power", "outage", "lost", "rebalance", "full", "tamper",
    "remove", "clock", "rollback", "promotion", "pin", "trim",
]  # fmt: skip
POINTS = ("take", "taken", "said", "writing", "renamed", "written", "announced", "commit")
"""``stream_app.failpoints``."""
_WEIGHTS: dict[Kind, int] = {
    "kill": 4, "kill_step": 6, "kill_point": 6, "freeze": 5, "stop": 2, "power": 1, "outage": 2, "lost": 3,
    "rebalance": 5, "full": 1, "tamper": 4, "remove": 2, "clock": 2, "rollback": 3, "promotion": 3, "pin": 1, "trim": 3,
}  # fmt: skip


class Fault(NamedTuple):
    at_s: float
    kind: Kind
    node: int
    value: float
    """How long it lasts, how far a clock jumps, how many steps are left: whatever the kind asks for, from 0 to 1."""
    point: str = ""


def plan(rng: random.Random, nodes: int, within_s: float) -> list[Fault]:
    """At least three."""
    kinds, weights = zip(*_WEIGHTS.items(), strict=True)
    count = rng.randint(3, rng.choice((4, 8, 12)))
    found = [
        Fault(
            at_s=rng.random() * within_s,
            kind=rng.choices(kinds, weights)[0],
            node=rng.randrange(nodes),
            value=rng.random(),
            point=rng.choice(POINTS),
        )
        for _ in range(count)
    ]
    return sorted(found)
