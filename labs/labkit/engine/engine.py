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
from labkit.engine.drafts import Policy, as_policy
from labkit.engine.request import Event, QueueFull, Request, Stats
from labkit.engine.scheduler import Plan, Scheduler, Work
from labkit.engine.storage import BlockCache, Int8Blocks
from labkit.graphs import capture
from labkit.sampling import Sampling, probabilities
from labkit.speculative import Proposer, as_proposer
from labkit.step import Step
from labkit.traces import Trace
from labkit.traces.blocks import BlocksStep
from labkit.traces.schedule import ScheduleStep
from labkit.traces.speculation import SpeculationStep

CACHE_DTYPES = (*DTYPES, "int8")
# a trace goes back so many steps: an engine that serves for days must not grow
TRACED_STEPS = 2000
# a request's own seed is seed * SEEDS + id: those of two engines meet after a million requests
SEEDS = 1_000_003


class Engine:
    """Serves many requests with one model: continuous batching, paged blocks, prefix reuse,
    speculation.

    max_batch: requests that run at once · n_blocks of block_size tokens: memory for keys and values
    · token_budget: tokens fed per step · max_waiting: queue length, None = any · speculative: None,
    "ngram" or a `speculative.Proposer` · drafts: how many it is asked for, for each request in each
    step: a number, a `drafts.Policy`, or None = `drafts.Measured`: as many as pay · cache_dtype:
    None = the model's · seed: for requests that sample without one.

    Greedy tokens are those of the request alone (fp32), whatever else runs. Models with recurrent
    (delta) layers reuse no prefix and check no drafts: a state can't be cut at a block, or rewound.
    ValueError for an argument that can't be.
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
        speculative: str | Proposer | None = None,
        drafts: int | Policy | None = None,
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
        if speculative is None and drafts is not None:
            raise ValueError(
                f"drafts={drafts!r} needs somebody who makes them: set speculative to 'ngram' or a"
                " Proposer"
            )
        self.model = model
        self.max_waiting = max_waiting
        self.seed = seed
        mixers = [block.mixer for block in model.blocks]
        recurrent = any(mixer.recurrent for mixer in mixers)
        self.proposer = as_proposer(speculative)
        policy = as_policy(drafts)
        self.policy = policy if self.proposer and not recurrent else None
        self.scheduler = Scheduler(
            max_batch=max_batch,
            n_blocks=n_blocks,
            block_size=block_size,
            token_budget=token_budget,
            longest=model.config.max_context,
            prefix_cache=prefix_cache and not recurrent,
        )
        # on a CPU, the same memory
        self.table = torch.from_numpy(self.scheduler.table).to(model.device)
        self.caches = [self._cache(mixer, cache_dtype) for mixer in mixers]
        self.forward = capture(model, self.caches, max_batch)
        self.requests: dict[int, Request] = {}
        self.events: list[Event] = []  # not yet returned by a step
        self.steps = 0  # that ran something
        self.log: deque[dict] = deque(maxlen=TRACED_STEPS)  # kind of trace -> what a step did

    def _cache(self, mixer, cache_dtype: str | None):
        """A layer's memory: a state for each row, or the blocks that the scheduler hands out."""
        model = self.model
        s = self.scheduler
        if mixer.recurrent:
            return caches.StateCache(len(s.table), mixer.items, model.dtype, model.device)
        kind = Int8Blocks if cache_dtype == "int8" else BlockCache
        dtype = DTYPES.get(cache_dtype) or model.dtype
        return kind(
            s.pool.n, s.block_size, self.table, mixer.items, dtype, model.device, mixer.window
        )

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
        id = len(self.requests)
        sampling = sampling or Sampling()
        own = sampling
        if sampling.seed is None:
            own = replace(sampling, seed=self.seed * SEEDS + id)
        r = Request(
            id,
            prompt,
            max_new_tokens,
            sampling,
            stop,
            generator=own.generator(self.model.device),
            arrived=time.perf_counter(),
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
        plan = self._schedule()
        if plan.work:
            chosen = self._run(plan.work)
            self._postprocess(plan, chosen, time.perf_counter() - started)
        events, self.events = self.events, []
        return events

    def _schedule(self) -> Plan:
        """Who runs, with how many tokens, and the drafts to check; their blocks can be written."""
        running = self.scheduler.running
        allowed = {}
        # while there are prompts to read, the budget is theirs
        if self.policy and running and all(r.decoding for r in running):
            allowed = self.policy.allow(running, self.scheduler.token_budget)
        plan = self.scheduler.schedule(allowed)
        if self.table.is_cuda and plan.work:
            self.table.copy_(torch.from_numpy(self.scheduler.table))
        for source, target in plan.copies:
            for cache in self.caches:
                cache.copy(source, target)
        may_draft = [w for w in plan.work if w.room]
        if may_draft:
            started = time.perf_counter()
            asked = [(w.request, w.room) for w in may_draft]
            for w, drafts in zip(may_draft, self.proposer.propose(asked, self.caches)):
                w.drafts = drafts[: w.room]  # there are no blocks for more
            plan.drafting = time.perf_counter() - started
        # equal lengths side by side make rectangles, which torch's attention needs
        plan.work.sort(key=lambda w: w.tokens)
        return plan

    def _run(self, work: list[Work]) -> list[list[int]]:
        """One forward for all; each request's new tokens, none for a prompt that goes on."""
        packed = []
        wanted = []  # packed indices of the tokens whose logits say what follows
        end = 0
        for w in work:
            r = w.request
            packed.append((r.row, r.done, [*r.tokens[r.done : r.done + w.fed], *w.drafts]))
            end += w.tokens
            if w.ends:
                wanted.extend(range(end - 1 - len(w.drafts), end))
        step = Step.of(packed, self.model.device)
        # a forward gives one row of logits at least, though nobody may read it
        last = torch.tensor(wanted or [0], device=self.model.device)
        return self._choose(work, self.forward(step, self.caches, last))

    def _choose(self, work: list[Work], logits: Tensor) -> list[list[int]]:
        """Each request's new tokens: chosen one by one as without drafts, for as long as the drafts
        agree.

        For a draft that is certain this *is* the lossless rule of `speculative.accept`. And it
        draws the same random numbers as a decode without drafts does, so a seed gives the same
        tokens either way.
        """
        largest, greedy = (t.tolist() for t in logits.max(-1))
        chosen = []
        at = 0  # the request's first row of logits
        for w in work:
            r = w.request
            new = []
            chosen.append(new)
            if not w.ends:
                continue
            for i, guess in enumerate([*w.drafts, None], at):
                if not math.isfinite(largest[i]):
                    self._end(r, "error", "the model's logits are not finite")
                    break
                token = greedy[i]
                if r.generator is not None:
                    p = probabilities(logits[i], r.sampling)
                    token = int(torch.multinomial(p, 1, generator=r.generator))
                new.append(token)
                if token != guess or token in r.stop:
                    break
            at += 1 + len(w.drafts)
        return chosen

    def _postprocess(self, plan: Plan, chosen: list[list[int]], seconds: float) -> None:
        """Tell the scheduler, the clients, the policy and the records."""
        now = time.perf_counter()
        rows = []
        checks = []
        written = []
        for w, new in zip(plan.work, chosen):
            r = w.request
            if r.finished:  # by an error
                continue
            rows.append([r.row, r.id, w.kind, w.tokens, r.done + w.tokens, len(new)])
            if w.drafts:
                accepted = sum(draft == token for draft, token in zip(w.drafts, new))
                checks.append((r, w.drafts, accepted))
            # the last new token is not in the cache yet; those before it came as drafts
            self.scheduler.advance(r, w.fed + max(0, len(new) - 1), new)
            if new:
                written.append([r.id, new])
                r.first_token = r.first_token or now
                r.last_token = now
                self.events.append(Event(r.id, new, r.finished))
        if self.policy and all(w.kind != "prefill" for w in plan.work):
            tokens = sum(w.tokens for w in plan.work)
            self.policy.observe(tokens, seconds, plan.drafting, checks)
        self.steps += 1
        self.log.append(
            {
                "schedule": ScheduleStep.of(self.scheduler, plan, rows, seconds),
                "blocks": BlocksStep.of(self.scheduler, plan),
                "speculation": SpeculationStep.of(checks, written, seconds),
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
        """What the last steps did: kind "schedule", "blocks" or "speculation".

        It goes back TRACED_STEPS steps; `meta["dropped"]` says how many came before them.
        """
        kinds = ("schedule", "blocks", "speculation")
        if kind not in kinds:
            raise ValueError(
                f"an engine keeps no trace of kind {kind!r}: choose {', '.join(kinds)}"
            )
        s = self.scheduler
        meta = {
            "max_batch": len(s.table),
            "n_blocks": s.pool.n,
            "block_size": s.block_size,
            "token_budget": s.token_budget,
            "dropped": self.steps - len(self.log),
        }
        return Trace(kind, "labkit.Engine.step", meta, [step[kind] for step in self.log])
