"""The loop that serves: schedule, run, postprocess."""
from __future__ import annotations

import math
import operator
import time
from collections import deque
from dataclasses import replace

import torch
from torch import Tensor

from labkit import caches
from labkit.decode import check_tokens
from labkit.engine.request import Event, QueueFull, Request, Stats
from labkit.engine.scheduler import Scheduler
from labkit.engine.storage import BlockCache
from labkit.sampling import Sampling, probabilities
from labkit.speculative import Speculation
from labkit.step import Step
from labkit.trace import BlocksStep, ScheduleStep, SpeculationStep, Trace

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TRACES = ("schedule", "blocks", "speculation")
LOG = 2000  # steps that a trace goes back


class Engine:
    """Serves many requests with one model: continuous batching, paged blocks, prefix reuse, speculation.

    max_batch: requests that run at once · n_blocks blocks of block_size tokens: the memory for keys and values · token_budget:
    tokens fed per step, decodes first · max_waiting: queue length (None: any) · speculative: None, "ngram" or a `Proposer` ·
    cache_dtype: None = the model's · seed: for requests that sample without a seed of their own.
    Greedy tokens equal those of the request alone (fp32), whatever else runs. A model with recurrent (delta) layers reuses no
    prefix and is not speculated on: its state can't be cut at a block or rewound.
    """

    def __init__(self, model, *, max_batch: int, n_blocks: int, block_size: int, token_budget: int = 256, max_waiting: int | None = None,
                 prefix_cache: bool = True, speculative=None, cache_dtype: str | None = None, seed: int = 0):
        for name, value in dict(max_batch=max_batch, n_blocks=n_blocks, block_size=block_size, token_budget=token_budget).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, not {value!r}")
        if cache_dtype not in (None, *DTYPES):
            raise ValueError(f"cache_dtype must be None, {', '.join(DTYPES)}, not {cache_dtype!r}")
        self.model, self.max_waiting, self.seed = model, max_waiting, seed
        mixers = [block.mixer for block in model.blocks]
        recurrent = any(getattr(m, "recurrent", False) for m in mixers)
        self.scheduler = Scheduler(max_batch, n_blocks, block_size, token_budget, model.config.max_context, prefix_cache and not recurrent)
        self.table = torch.from_numpy(self.scheduler.table).to(model.device)  # on a CPU, the same memory
        dtype = DTYPES.get(cache_dtype, model.dtype)
        self.caches = [caches.StateCache(max_batch, m.items, model.dtype, model.device) if getattr(m, "recurrent", False) else
                       BlockCache(n_blocks, block_size, self.table, m.items, dtype, model.device, m.window) for m in mixers]
        self.speculation = Speculation(None if recurrent else speculative)
        self.requests: dict[int, Request] = {}
        self._events: list[Event] = []
        self._log: deque = deque(maxlen=LOG)

    def add(self, prompt: list[int], max_new_tokens: int, sampling: Sampling | None = None, stop=None) -> int:
        """Queue a request; returns its id. stop: token ids that end it (kept), None = the model's own, () = never.

        ValueError for a bad argument or a request that can never fit the blocks; QueueFull when max_waiting requests wait.
        """
        try:
            prompt, max_new_tokens = [operator.index(t) for t in prompt], operator.index(max_new_tokens)
        except TypeError:
            raise ValueError("a prompt is a list of token ids, and max_new_tokens a whole number") from None
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if not isinstance(sampling, Sampling | None):
            raise ValueError(f"sampling must be a labkit.Sampling, not {sampling!r}")
        check_tokens(self.model.config, prompt, max_new_tokens)
        need, pool = self.scheduler.blocks_for(len(prompt) + max_new_tokens - 1), self.scheduler.pool
        if need > pool.n:
            raise ValueError(f"{len(prompt)} prompt tokens + {max_new_tokens} new ones need {need} blocks, and there are {pool.n}")
        if self.max_waiting is not None and len(self.scheduler.waiting) >= self.max_waiting:
            raise QueueFull(f"{self.max_waiting} requests are waiting already: try again later")
        id, sampling = len(self.requests), sampling or Sampling()
        own = sampling if sampling.seed is not None else replace(sampling, seed=self.seed * 1_000_003 + id)
        stop = self.model.config.stop if stop is None else tuple(stop)
        r = Request(id, prompt, max_new_tokens, sampling, stop, own.generator(self.model.device), time.perf_counter())
        self.requests[id] = r
        self.scheduler.waiting.append(r)
        return id

    def cancel(self, id: int) -> None:
        """End a request; its blocks are free at once. KeyError for an unknown id; nothing happens to one that has ended."""
        if id not in self.requests:
            raise KeyError(f"no request has the id {id!r}")
        if not self.requests[id].finished:
            self._end(self.requests[id], "cancelled")

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One turn of the loop: choose the work, run all of it as one forward, read off the new tokens."""
        started = time.perf_counter()
        self.speculation.allow(self.scheduler)
        work = self.scheduler.schedule()
        if work:
            step, wanted, drafts = self._pack(work)
            logits = self.model(step, self.caches, wanted)
            chosen = self._choose(work, drafts, logits)
            self._postprocess(work, drafts, chosen, started)
        events, self._events = self._events, []
        return events

    def run(self) -> dict[int, list[int]]:
        """Step until nothing is left to do; the new tokens of every request added so far."""
        while self.scheduler.running or self.scheduler.waiting:
            self.step()
        return {id: r.new for id, r in self.requests.items()}

    # -- the parts of a step -------------------------------------------------------------------------------------
    def _pack(self, work: list) -> tuple[Step, Tensor, dict]:
        """The step, the packed indices of the logits that are wanted, and the drafts it checks. A prompt that goes on wants no logits."""
        if self.table.device.type != "cpu":
            self.table.copy_(torch.from_numpy(self.scheduler.table))
        for cache in self.caches if self.scheduler.copies else ():
            cache.copy(self.scheduler.copies)
        drafts = self.speculation.propose(work, self.caches)
        work[:] = [(r, 1 + len(drafts.get(r.id, ())) if len(r.tokens) - r.done == 1 else n) for r, n in work]
        work.sort(key=lambda w: w[1])  # equal lengths side by side make rectangles
        packed, wanted, at = [], [], 0
        for r, n in work:
            draft = drafts.get(r.id, [])
            packed.append((r.row, r.done, r.tokens[r.done : r.done + n] + draft))
            at += n
            if r.done + n >= len(r.tokens):
                wanted.extend(range(at - 1 - len(draft), at))
        return Step.of(packed, self.model.device), torch.tensor(wanted or [0], device=self.model.device), drafts

    def _choose(self, work: list, drafts: dict, logits: Tensor) -> list[list[int]]:
        """The new tokens of each request. Token by token it chooses as it would without drafts, and goes on while they agree.

        For a draft that is certain this *is* the lossless rule of `speculative.accept`, and it draws the same random numbers as a
        decode without drafts: the same seed gives the same tokens.
        """
        best, greedy = logits.max(-1)
        best, greedy = best.tolist(), greedy.tolist()
        chosen, at = [], 0
        for r, n in work:
            new, draft = [], drafts.get(r.id, [])
            if r.done + n >= len(r.tokens):
                for i, guess in enumerate([*draft, None]):
                    if not math.isfinite(best[at + i]):
                        new = []
                        self._end(r, "error", "the model's logits are not finite")
                        break
                    token = greedy[at + i] if r.generator is None else int(torch.multinomial(probabilities(logits[at + i], r.sampling), 1, generator=r.generator))
                    new.append(token)
                    if token != guess or token in r.stop:
                        break
                at += 1 + len(draft)
            chosen.append(new)
        return chosen

    def _postprocess(self, work: list, drafts: dict, chosen: list, started: float) -> None:
        """Tell the scheduler, the clients and the records what came out."""
        now, did, checked = time.perf_counter(), [], []
        for (r, n), new in zip(work, chosen):
            if r.finished:  # by an error
                continue
            row, draft = r.row, drafts.get(r.id, [])
            decodes = len(r.tokens) - r.done == 1
            if draft:
                checked.append((r, draft, sum(x == y for x, y in zip(draft, new))))
            did.append((row, r.id, "check" if draft else "decode" if decodes else "prefill", n, r.done + n, new))
            self.scheduler.advance(r, len(new) if decodes else n, new)
            if new:
                r.first_token, r.last_token = r.first_token or now, now
                self._events.append(Event(r.id, new, r.finished))
        if all(kind != "prefill" for _, _, kind, *_ in did):
            self.speculation.observe(sum(n for _, n in work), now - started, [(r, len(d), a) for r, d, a in checked])
        self._record(now - started, did, checked)

    def _end(self, r: Request, reason: str, message: str = "") -> None:
        self.scheduler.finish(r, reason)
        self._events.append(Event(r.id, [], reason, message))

    # -- what happened -------------------------------------------------------------------------------------------
    def _record(self, seconds: float, did: list, checked: list) -> None:
        s = self.scheduler
        self._log.append({
            "schedule": ScheduleStep(seconds, [list(d[:5]) + [len(d[5])] for d in did], [r.id for r in s.waiting], s.preempted,
                                     {r.id: r.finished for r in map(self.requests.get, (d[1] for d in did)) if r.finished}),
            "blocks": BlocksStep({r.id: list(r.blocks) for r in s.running}, len(s.pool.free), list(s.pool.kept), s.copies, s.hit_tokens),
            "speculation": SpeculationStep(seconds, [[r.id, draft, accepted] for r, draft, accepted in checked])})

    @property
    def stats(self) -> Stats:
        """Counts now, and per request seconds to its first token (ttft) and per token after it (tpot)."""
        s, begun = self.scheduler, [r for r in self.requests.values() if r.first_token]
        return Stats(running=len(s.running), waiting=len(s.waiting), blocks_used=s.pool.used, blocks_total=s.pool.n,
                     prefix_hit_tokens=s.hit_tokens, preemptions=s.preemptions, ttft={r.id: r.first_token - r.arrived for r in begun},
                     tpot={r.id: (r.last_token - r.first_token) / (len(r.new) - 1) for r in begun if len(r.new) > 1})

    def trace(self, kind: str = "schedule") -> Trace:
        """What the last steps did: kind "schedule", "blocks" or "speculation"."""
        if kind not in TRACES:
            raise ValueError(f"an engine has no trace of kind {kind!r}: choose {', '.join(TRACES)}")
        s = self.scheduler
        meta = {"max_batch": len(s.table), "n_blocks": s.pool.n, "block_size": s.block_size, "token_budget": s.token_budget}
        return Trace(kind, "labkit.Engine.step", meta, [step[kind] for step in self._log])
