"""Certificates for tests, made anew each time."""

from pathlib import Path
from typing import NamedTuple

import trustme


class Files(NamedTuple):
    """Paths of PEM files."""

    chain: Path
    key: Path
    ca: Path


def issue(ca: trustme.CA, folder: Path, name: str = "localhost") -> Files:
    """A certificate of ``ca``'s in ``folder``, over those that lie there."""
    files = Files(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")
    made = ca.issue_cert(name)
    files.chain.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    made.private_key_pem.write_to_path(files.key)
    ca.cert_pem.write_to_path(files.ca)
    return files
