"""In which order records took effect, so that it can happen again: core -> [course] -> artefact -> reproduce.

What a network learns depends to the last bit on the order of the partitions' records, on where steps were cut because
nothing more came, and on the versions of others that it was merged with. A version says all three of its writer's way.
"""

import secrets
from collections.abc import Iterable

import msgspec

TEXT = "course"
"""Name of the text of an artefact that holds it."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one replica to one of its versions."""

    life: str
    """The replica's, from its seeding on; its versions have it in common."""
    began_at: int
    """Number of the version that it was seeded from."""
    partitions: tuple[int, ...]
    """Learned by it then."""
    before: int
    """Number of its version before this one; of its first version, ``began_at``."""
    steps: tuple[tuple[int, int] | int, ...]
    """Since then: a partition and the next offset to take effect there; or the number of the version that it was
    merged with."""


class Log:
    """Writes a life down.

    Args:
        began_at: number of the version that the replica was seeded from.
        partitions: that it learns.
        size: steps are cut at multiples of it anyway.
    """

    def __init__(self, began_at: int, partitions: Iterable[int], size: int) -> None:
        self._life, self._began_at, self._partitions = secrets.token_hex(8), began_at, tuple(sorted(partitions))
        self._size, self._before = size, began_at
        self._steps: list[tuple[int, int] | int] = []
        self._told = 0
        """So many of them some course has; those are not changed any more."""

    def took(self, partition: int, next_offset: int) -> None:
        """All records before ``next_offset`` have taken effect."""
        if len(self._steps) > self._told:
            last = self._steps[-1]
            if isinstance(last, tuple) and last[0] == partition and last[1] % self._size == 0:
                self._steps.pop()
        self._steps.append((partition, next_offset))

    def merged(self, number: int) -> None:
        """What was learned goes on from that version."""
        self._steps.append(number)

    def course(self) -> Course:
        """Up to here."""
        self._told = len(self._steps)
        return Course(
            life=self._life,
            began_at=self._began_at,
            partitions=self._partitions,
            before=self._before,
            steps=tuple(self._steps),
        )

    def covered(self, course: Course, number: int) -> None:
        """Version ``number``, with this course, is the head: the next one's begins there."""
        self._before = number
        del self._steps[: len(course.steps)]
        self._told = max(0, self._told - len(course.steps))
