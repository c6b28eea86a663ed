"""The loop that serves: schedule, run, postprocess."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace

import torch
from torch import Tensor

from labkit import caches
from labkit.config import whole
from labkit.decode import check_prompt, check_stop
from labkit.dtypes import DTYPES
from labkit.engine.request import Event, QueueFull, Request, Stats
from labkit.engine.scheduler import Scheduler
from labkit.engine.storage import BlockCache, Int8Blocks
from labkit.sampling import Sampling, probabilities
from labkit.speculative import Speculation
from labkit.step import Step
from labkit.traces import Trace
from labkit.traces.blocks import BlocksStep
from labkit.traces.schedule import ScheduleStep
from labkit.traces.speculation import SpeculationStep

CACHE_DTYPES = (*DTYPES, "int8")


class Engine:
    """Serves many requests with one model: continuous batching, paged blocks, prefix reuse,
    speculation.

    max_batch: requests that run at once · n_blocks of block_size tokens: memory for keys and values
    · token_budget: tokens fed per step · max_waiting: queue length, None = any · speculative: None,
    "ngram" or a `speculative.Proposer` · cache_dtype: None = the model's · seed: for requests that
    sample without one. Greedy tokens are those of the request alone (fp32), whatever else runs.
    Models with recurrent (delta) layers reuse no prefix and check no drafts: a state can't be cut
    at a block, or rewound.
    """

    def __init__(
        self,
        model,
        *,
        max_batch: int,
        n_blocks: int,
        block_size: int,
        token_budget: int = 256,
        max_waiting: int | None = None,
        prefix_cache: bool = True,
        speculative=None,
        cache_dtype: str | None = None,
        seed: int = 0,
    ):
        whole(
            max_batch=max_batch, n_blocks=n_blocks, block_size=block_size, token_budget=token_budget
        )
        if max_waiting is not None:
            whole(max_waiting=max_waiting)
        if cache_dtype not in (None, *CACHE_DTYPES):
            raise ValueError(
                f"cache_dtype must be None or one of {', '.join(CACHE_DTYPES)}, not {cache_dtype!r}"
            )
        self.model = model
        self.max_waiting = max_waiting
        self.seed = seed
        mixers = [block.mixer for block in model.blocks]
        dtype = DTYPES.get(cache_dtype) or model.dtype
        blocks = Int8Blocks if cache_dtype == "int8" else BlockCache
        recurrent = [getattr(mixer, "recurrent", False) for mixer in mixers]
        self.scheduler = Scheduler(
            max_batch,
            n_blocks,
            block_size,
            token_budget,
            model.config.max_context,
            prefix_cache and not any(recurrent),
        )
        # on a CPU, the same memory
        self.table = torch.from_numpy(self.scheduler.table).to(model.device)
        self.caches = [
            (
                caches.StateCache(max_batch, m.items, model.dtype, model.device)
                if state
                else blocks(
                    n_blocks, block_size, self.table, m.items, dtype, model.device, m.window
                )
            )
            for m, state in zip(mixers, recurrent)
        ]
        self.speculation = Speculation(None if any(recurrent) else speculative)
        self.requests: dict[int, Request] = {}
        self.events: list[Event] = []  # not yet returned by a step
        self.log: deque = deque(maxlen=2000)  # steps that a trace goes back

    def add(
        self, prompt: list[int], max_new_tokens: int, sampling: Sampling | None = None, stop=None
    ) -> int:
        """Queue a request; returns its id. stop: token ids that end it (kept), None = the model's
        own, () = never.

        ValueError for a bad argument, or if it can never fit the blocks; QueueFull when max_waiting
        requests wait.
        """
        config = self.model.config
        whole(max_new_tokens=max_new_tokens)
        prompt = check_prompt(config, prompt, max_new_tokens)
        stop = check_stop(config, stop)
        if not isinstance(sampling, Sampling | None):
            raise ValueError(f"sampling must be a labkit.Sampling, not {sampling!r}")
        need = self.scheduler.blocks_for(len(prompt) + max_new_tokens - 1)
        blocks = self.scheduler.pool.n
        if need > blocks:
            raise ValueError(
                f"{len(prompt)} prompt tokens + {max_new_tokens} new ones need {need} blocks, but"
                f" there are {blocks}"
            )
        if self.max_waiting is not None and len(self.scheduler.waiting) >= self.max_waiting:
            raise QueueFull(f"{self.max_waiting} requests are waiting already: try again later")
        id, sampling = len(self.requests), sampling or Sampling()
        own = (
            sampling
            if sampling.seed is not None
            else replace(sampling, seed=self.seed * 1_000_003 + id)
        )
        r = Request(
            id,
            prompt,
            max_new_tokens,
            sampling,
            stop,
            own.generator(self.model.device),
            time.perf_counter(),
        )
        self.requests[id] = r
        self.scheduler.waiting.append(r)
        return id

    def cancel(self, id: int) -> None:
        """End a request; its blocks are free at once.

        KeyError for an unknown id; one that has ended stays as it is.
        """
        if id not in self.requests:
            raise KeyError(f"no request has the id {id!r}")
        if not self.requests[id].finished:
            self._end(self.requests[id], "cancelled")

    def run(self) -> dict[int, list[int]]:
        """Step until nothing is left to do; the new tokens of every request added so far."""
        while self.scheduler.running or self.scheduler.waiting:
            self.step()
        return {id: r.new for id, r in self.requests.items()}

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Choose the work, run all of it in one forward, hand out the new tokens."""
        started = time.perf_counter()
        self.speculation.allow(self.scheduler)
        work = self.scheduler.schedule()
        if work:
            step, wanted, drafts = self._pack(work)
            logits = self.model(step, self.caches, wanted)
            new = self._choose(work, drafts, logits)
            self._postprocess(work, drafts, new, started)
        events, self.events = self.events, []
        return events

    def _pack(self, work: list) -> tuple[Step, Tensor, dict]:
        """The step, the packed indices of the logits that are wanted, and the drafts it checks.

        A prompt that goes on wants no logits.
        """
        if self.table.is_cuda:
            self.table.copy_(torch.from_numpy(self.scheduler.table))
        for pair in self.scheduler.copies:
            for cache in self.caches:
                cache.copy(*pair)
        drafts = self.speculation.propose(work, self.caches)
        work[:] = [(r, 1 + len(drafts.get(r.id, ())) if r.decoding else n) for r, n in work]
        # equal lengths side by side make rectangles, which torch's attention needs
        work.sort(key=lambda w: w[1])
        packed, wanted, end = [], [], 0
        for r, n in work:
            draft, end = drafts.get(r.id, []), end + n
            packed.append((r.row, r.done, r.tokens[r.done : r.done + n] + draft))
            if r.done + n >= len(r.tokens):
                wanted.extend(range(end - 1 - len(draft), end))
        return (
            Step.of(packed, self.model.device),
            torch.tensor(wanted or [0], device=self.model.device),
            drafts,
        )

    def _choose(self, work: list, drafts: dict, logits: Tensor) -> list[list[int]]:
        """Each request's new tokens: chosen one by one as without drafts, for as long as the drafts
        agree.

        For a draft that is certain this *is* the lossless rule of `speculative.accept`. And it
        draws the same random numbers as a decode without drafts does, so a seed gives the same
        tokens either way.
        """
        (best, greedy), chosen, at = (t.tolist() for t in logits.max(-1)), [], 0
        for r, n in work:
            chosen.append(new := [])
            if r.done + n < len(r.tokens):
                continue
            draft = drafts.get(r.id, [])
            for i, guess in enumerate([*draft, None], at):
                if not math.isfinite(best[i]):
                    self._end(r, "error", "the model's logits are not finite")
                    break
                draw = r.generator and torch.multinomial(
                    probabilities(logits[i], r.sampling), 1, generator=r.generator
                )
                new.append(greedy[i] if draw is None else int(draw))
                if new[-1] != guess or guess in r.stop:
                    break
            at += 1 + len(draft)
        return chosen

    def _postprocess(self, work: list, drafts: dict, chosen: list, started: float) -> None:
        """Tell the scheduler, the clients and the records."""
        now, did, checks = time.perf_counter(), [], []
        for (r, n), new in zip(work, chosen):
            if r.finished:  # by an error
                continue
            draft, decodes = drafts.get(r.id), r.decoding
            did.append(
                [
                    r.row,
                    r.id,
                    "check" if draft else "decode" if decodes else "prefill",
                    n,
                    r.done + n,
                    len(new),
                ]
            )
            if draft:
                checks.append((r, draft, sum(x == y for x, y in zip(draft, new))))
            self.scheduler.advance(r, len(new) if decodes else n, new)
            if new:
                r.first_token = r.first_token or now
                r.last_token = now
                self.events.append(Event(r.id, new, r.finished))
        if not any(kind == "prefill" for _, _, kind, *_ in did):
            self.speculation.observe(sum(n for _, n in work), now - started, checks)
        seconds = now - started
        self.log.append(
            {
                "schedule": ScheduleStep.of(self.scheduler, work, did, seconds),
                "blocks": BlocksStep.of(self.scheduler),
                "speculation": SpeculationStep.of(checks, seconds),
            }
        )

    def _end(self, r: Request, reason: str, message: str = "") -> None:
        self.scheduler.finish(r, reason)
        self.events.append(Event(r.id, [], reason, message))

    @property
    def stats(self) -> Stats:
        """Counts now, and seconds per request: to its first token (ttft), and per token after it
        (tpot).
        """
        s, begun = self.scheduler, [r for r in self.requests.values() if r.first_token]
        return Stats(
            running=len(s.running),
            waiting=len(s.waiting),
            blocks_used=s.pool.used,
            blocks_total=s.pool.n,
            prefix_hit_tokens=s.hit_tokens,
            preemptions=s.preemptions,
            ttft={r.id: r.first_token - r.arrived for r in begun},
            tpot={
                r.id: (r.last_token - r.first_token) / (len(r.new) - 1)
                for r in begun
                if len(r.new) > 1
            },
        )

    def trace(self, kind: str = "schedule") -> Trace:
        """What the last steps did: kind "schedule", "blocks" or "speculation"."""
        kinds, s = ("schedule", "blocks", "speculation"), self.scheduler
        if kind not in kinds:
            raise ValueError(
                f"an engine keeps no trace of kind {kind!r}: choose {', '.join(kinds)}"
            )
        meta = {
            "max_batch": len(s.table),
            "n_blocks": s.pool.n,
            "block_size": s.block_size,
            "token_budget": s.token_budget,
        }
        return Trace(kind, "labkit.Engine.step", meta, [step[kind] for step in self.log])
