"""Places where a test may let the process die: STREAM_APP_FAILPOINT=write:3 kills -9 at the third ``write``.

take       a chunk has arrived                        writing    an artefact is half on disk
taken      it has taken effect in memory              renamed    it has its name, which may not be durable
said       its predictions are under way              written    it is durable, not yet announced
commit     the version is read back as the head       announced  announced, not yet read back
merged     another's version has been merged in memory
"""

import os
import signal

_NAME, _, _TIMES = os.environ.get("STREAM_APP_FAILPOINT", "").partition(":")
_left = int(_TIMES or 1)


def reach(name: str) -> None:
    """Die here without any clean-up, if the environment says so."""
    global _left
    if name == _NAME:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
