"""A ``.tsk`` file behind HTTP, with a histogram of its latencies in the form that Prometheus reads.

    pip install "ticketsmith[runtime]" fastapi uvicorn
    ticketsmith export runs/imp_mnist --format tsk --output model.tsk
    MODEL=model.tsk uvicorn --app-dir examples serve_fastapi:app --port 8000

    curl localhost:8000/predict -H 'content-type: application/json' -d '{"inputs": [[...]]}'
    curl localhost:8000/metrics

The sparse runtime lets go of Python's lock while it computes and may be called by any number of threads at once, so that
FastAPI's own threads serve as many requests side by side as there are cores. Set MODEL_THREADS for more threads a call.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from itertools import accumulate
from threading import Lock
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from ticketsmith import runtime

MOST = int(os.environ.get("MODEL_BATCH", "256"))
"""Inputs of one request."""


class Histogram:
    """Counts of latencies below each bound, seconds; from 10 microseconds to 10 seconds, three bounds a decade."""

    bounds = (*(float(f"{figure}e{power}") for power in range(-5, 1) for figure in (1, 2, 5)), 10.0)

    def __init__(self, name: str, about: str) -> None:
        self.name, self.about = name, about
        self._lock = Lock()
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect_left(self.bounds, seconds)] += 1
            self._sum += seconds

    def text(self) -> str:
        """In Prometheus' own format: counts add up from bound to bound."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        lines = [f"# HELP {self.name} {self.about}", f"# TYPE {self.name} histogram"]
        for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {count}')
        return "\n".join([*lines, f"{self.name}_sum {total}", f"{self.name}_count {counts[-1]}", ""])


class Request(BaseModel):
    """A batch: ``[n, ...]``, each of the shape that the network reads."""

    inputs: list[Any]


class Answer(BaseModel):
    """The network's outputs, ``[n, ...]``."""

    outputs: list[Any]


app = FastAPI(title="A winning ticket")
model = runtime.load(os.environ["MODEL"], threads=int(os.environ.get("MODEL_THREADS", "1")))
latency = Histogram("ticket_latency_seconds", "Time of a call of the network, without HTTP and JSON.")


@app.post("/predict")
def predict(request: Request) -> Answer:
    """The network's outputs for a batch. Not ``async``: FastAPI then calls it in a thread of its own."""
    try:
        batch = np.asarray(request.inputs, np.float32)
    except ValueError as error:
        raise HTTPException(422, "inputs: not an array of numbers, all rows of one shape") from error
    if batch.shape[1:] != tuple(model.shape) or not 1 <= len(batch) <= MOST:
        raise HTTPException(
            422, f"inputs: expected [1 to {MOST}, {', '.join(map(str, model.shape))}], got {list(batch.shape)}"
        )
    begin = time.perf_counter()
    outputs = model(batch)
    latency.add(time.perf_counter() - begin)
    return Answer(outputs=outputs.tolist())


@app.get("/metrics", response_class=PlainTextResponse)
def metrics() -> str:
    """For Prometheus to scrape."""
    return latency.text()


@app.get("/health")
def health() -> dict[str, Any]:
    """What is served: the key of the run, and how sparse it is."""
    return {"shape": list(model.shape), "model": os.path.basename(os.environ["MODEL"])}  # noqa: PTH119
