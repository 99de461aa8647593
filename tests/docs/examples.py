"""Examples of a document, run as they stand.

A fenced block of ``python`` or ``sh`` is an example; addresses in it are replaced by the server's. A block of ``json``
or ``text`` right after one is what it prints, where ``...`` stands for anything and white space does not matter. Blocks
in other languages (``console``: what starts servers; ``toml``: files) are not run.
"""

import io
import re
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

RUN = ("python", "sh")
PRINTED = ("json", "text")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WITHIN_S = 60.0


class Example(NamedTuple):
    """One block, and what it prints if the document says so."""

    line: int
    language: str
    code: str
    printed: str | None


def examples_of(document: str) -> list[Example]:
    found: list[Example] = []
    end = 0
    for block in _BLOCK.finditer(document):
        language, text = block.groups()
        follows = not document[end : block.start()].strip()
        if language in RUN:
            found.append(Example(document.count("\n", 0, block.start()) + 1, language, text, None))
        elif language in PRINTED:
            if not follows or not found or found[-1].printed is not None:
                line = document.count("\n", 0, block.start()) + 1
                raise ValueError(f"line {line}: a block of {language} that follows no example")
            found[-1] = found[-1]._replace(printed=text)
        end = block.end()
    return found


def run(example: Example, addresses: Mapping[str, str], folder: Path) -> str | None:
    """What went wrong; None if nothing did.

    Args:
        addresses: as the document has them -> where the server is.
        folder: of ``sh``.
    """
    code = example.code
    for written, real in addresses.items():
        code = code.replace(written, real)
    try:
        printed = _python(code) if example.language == "python" else _sh(code, folder)
    except Exception as error:  # an example may fail in any way
        return f"{type(error).__name__}: {error}"
    if example.printed is not None and not matches(example.printed, printed):
        return f"printed\n{printed}\nwanted\n{example.printed}"
    return None


def _python(code: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(code, "<example>", "exec"), {"__name__": "example"})
    return out.getvalue()


def _sh(code: str, folder: Path) -> str:
    argv = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_WITHIN_S, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def matches(wanted: str, printed: str) -> bool:
    """Whether it is what is wanted: ``...`` is anything, white space is nothing."""
    parts = ["".join(part.split()) for part in wanted.split("...")]
    pattern = ".*".join(map(re.escape, parts))
    return re.fullmatch(pattern, "".join(printed.split()), re.DOTALL) is not None
