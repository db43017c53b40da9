"""Kills an experiment again and again at random moments, then compares its store byte for byte with an undisturbed one.

    python benchmarks/kills.py --kills 100

Leave the checkout alone meanwhile: a run's environment.json names its commit. The experiment is a small one on
scikit-learn's digits, with two workers. A kill hits the whole process group, the parent alone, or one worker, by SIGKILL,
SIGTERM or SIGINT. When an experiment is finished before its time, it begins anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """
experiment: kills
task: {data: digits, model: {name: mlp, widths: [64, 32]}, validation: 200}
training: {optimizer: adam, lr: 0.003, batch_size: 50, duration: 1500it, evaluate_every: 50it}
pruning: {levels: 3, fraction: 0.5, rates: {output: 0.25}}
rewind: 100it
replicates: 2
"""


def start(folder: Path, store: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "ticketsmith",
        "prune",
        "--config",
        str(folder / "recipe.yaml"),
        "--store",
        str(store),
    ]
    more = ["--no-benchmark", "--checkpoint-every", "0.1"]
    return subprocess.Popen(
        [*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def sealed(store: Path) -> dict[str, str]:
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for run in store.glob("*/*/seed-*/level-*")
        for path in run.iterdir()
    }


def workers(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in listed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    (folder / "recipe.yaml").write_text(RECIPE)
    start(folder, folder / "reference").communicate()
    expected = sealed(folder / "reference")
    print(f"{len(expected)} files in {len({name.rpartition('/')[0] for name in expected})} sealed runs", flush=True)
    done, finished, tracebacks = 0, 0, 0
    while done < options.kills:
        process = start(folder, folder / "broken")
        time.sleep(chance.uniform(1.0, 9.0))
        if process.poll() is None:
            how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            target = chance.choice(["group", "parent", "worker"])
            try:
                if target == "worker" and (children := workers(process.pid)):
                    os.kill(chance.choice(children), signal.SIGKILL)
                    time.sleep(chance.uniform(0.0, 2.0))
                (os.killpg if target == "group" else os.kill)(process.pid, how)
                done += 1
            except (ProcessLookupError, FileNotFoundError):
                pass
        _, err = process.communicate()
        tracebacks += b"Traceback" in err
        if sealed(folder / "broken") == expected:  # begin anew, so that every kill strikes work in progress
            shutil.rmtree(folder / "broken")
            finished += 1
    start(folder, folder / "broken").communicate()
    found = sealed(folder / "broken")
    same = found == expected
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            print(f"differs: {name}")
    print(
        f"{done} kills, {finished + 1} experiments finished through them, {tracebacks} tracebacks; bytes equal: {same}"
    )
    shutil.rmtree(folder)
    sys.exit(not same)


if __name__ == "__main__":
    main()
