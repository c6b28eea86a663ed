"""A decode step as a CUDA graph: what the host launches one by one, the GPU replays by itself.

A step of a small batch is some hundred launches, each of which takes the host longer than the GPU.
Captured, they are one. A graph reads and writes fixed tensors: `ids`, `rows` and `pos` of as many
requests as it was captured for, and the model's weights and caches where they lie. So there is one
for each padded batch size; what a step lacks is padding, at position -1.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor

from labkit.graphs import ways
from labkit.graphs.ways import Ways
from labkit.model import GPT
from labkit.step import Step

FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")


class NoRoom(RuntimeError):
    """The GPU has no memory left for a graph. Nothing else is lost: go on without."""


class CudaGraphs:
    """A model's decode steps on these caches, captured at first use for each batch size.

    batch: the most requests of a step. way: one of `ways.WAYS`, None = the fastest for each size;
    `taken` says which size went which way, `reasons` why a faster way could not be. The model and
    its caches must stay where they are, on their device. ValueError with the reason where
    `why_not` gives one; `NoRoom` where memory is short.
    """

    def __init__(self, model: GPT, caches: list, batch: int, way: str | None = None):
        if why := self.why_not(model, caches):
            raise ValueError(f"no CUDA graph can be captured: {why}")
        if batch < 1:
            raise ValueError(f"a graph is for at least one request, not {batch}")
        device = model.device
        self.rows_there = min(_rows(cache) for cache in caches)
        self.batch = batch
        self.sizes = sizes(batch)
        self.way = way
        self.taken: dict[int, str] = {}  # size -> way
        self.device = device
        with room("what its graphs need to begin with"):
            self.ways = Ways(model, caches, batch)
            self.ids = torch.zeros(batch, dtype=torch.long, device=device)
            self.rows = torch.zeros(batch, dtype=torch.long, device=device)
            self.pos = torch.full((batch,), -1, dtype=torch.long, device=device)
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.logits: dict[int, Tensor] = {}

    @staticmethod
    def why_not(model: GPT, caches: list) -> str:
        """One sentence why this model's step can't be captured on these caches; empty if it can.

        A model that our kernels can't do, or a machine without Triton, is captured all the same,
        with torch's own operations.
        """
        if why := ways.why_not(model, caches):
            return why
        if model.device.type != "cuda":
            return f"the model is on a {model.device.type}, and CUDA graphs are for GPUs"
        return ""

    @property
    def reasons(self) -> dict[str, str]:
        """Of each way that can't be gone: why."""
        return {way: why for way, why in self.ways.reasons.items() if why}

    def refuses(self, step: Step) -> str:
        """One sentence why this step can't be replayed; empty if it can."""
        most = max(step.lengths)
        if most > 1:
            return f"a captured step takes one token of each request, and this one brings {most}"
        if len(step.row_list) > self.batch:
            return f"{len(step.row_list)} requests are more than the {self.batch} captured for"
        if max(step.context) > self.ways.longest:
            return f"a request reaches {max(step.context)} tokens of {self.ways.longest} held"
        if not 0 <= min(step.row_list) <= max(step.row_list) < self.rows_there:
            return f"a row of the step is none of the {self.rows_there} that the caches have"
        return ""

    @torch.inference_mode()
    def __call__(self, step: Step, last: Tensor | None = None) -> Tensor:
        """Logits of a decode step, [R,V], or of the packed tokens `last`: what the model gives.

        ValueError for a step that `refuses` refuses; `NoRoom` where it can't be captured.
        """
        if why := self.refuses(step):
            raise ValueError(why)
        R = len(step.row_list)
        size = next(n for n in self.sizes if n >= R)
        if size not in self.graphs:
            self._capture(size)
        self.ids[:R].copy_(step.ids)
        self.rows[:R].copy_(step.rows)
        self.pos[:R].copy_(step.pos)
        self.pos[R:size].fill_(-1)
        self.graphs[size].replay()
        # the next replay writes over them
        logits = self.logits[size][:R]
        return logits.clone() if last is None else logits[last]

    def _capture(self, size: int) -> None:
        """Run the step twice as it is, on padding alone, then once more into a graph.

        The first run compiles kernels and lets libraries set up, which a capture can't.
        """
        way = self.way or self.ways.fastest(size)
        fixed = (self.ids[:size], self.rows[:size], self.pos[:size])
        self.pos.fill_(-1)
        graph = torch.cuda.CUDAGraph()
        # a capture that fails may leave its own stream behind as the current one
        here = torch.cuda.current_stream(self.device)
        with room(f"a graph of {size} requests"), torch.cuda.stream(here):
            aside = torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(2):
                    self.ways.step(way, *fixed)
            here.wait_stream(aside)
            with torch.cuda.graph(graph, pool=self.pool):
                logits = self.ways.step(way, *fixed)
        self.graphs[size] = graph
        self.logits[size] = logits
        self.taken[size] = way


def sizes(batch: int) -> list[int]:
    """The padded batch sizes: powers of 2, and `batch` itself."""
    found = []
    size = 1
    while size < batch:
        found.append(size)
        size *= 2
    return [*found, batch]


@contextmanager
def room(what: str):
    """Out of memory inside becomes `NoRoom`, in one sentence, and what was taken is given back."""
    failed = False
    try:
        yield
    except RuntimeError as e:
        if not _out_of_memory(e):
            raise
        failed = True
    # outside of the handler, whose traceback would keep the tensors
    if failed:
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        raise NoRoom(
            f"the GPU's memory has no room for {what}: {free / 1e9:.1f} of {total / 1e9:.1f} GB"
            " are free; nothing is lost, but steps go on one launch at a time"
        )


def _out_of_memory(e: BaseException | None) -> bool:
    """Whether memory was what failed first: a capture that ends badly raises an error of its own
    on top. The driver and cuBLAS, which allocate for themselves, say it in words.
    """
    while e is not None:
        if isinstance(e, torch.cuda.OutOfMemoryError) or any(word in str(e) for word in FULL):
            return True
        e = e.__context__
    return False


def _rows(cache) -> int:
    """How many requests a cache has a row for."""
    return len(cache.table) if hasattr(cache, "table") else cache.rows
