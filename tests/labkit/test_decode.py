"""The equality chain: naive = cached = paged = batched = chunked, token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit import Sampling, decode
from labkit.step import Step
from tests import oracles


@pytest.fixture(scope="module")
def model():
    return labkit.weights.from_hf(oracles.build("llama-gqa"))


GATE = oracles.gate("llama-gqa")
PROMPTS = [oracles.text(n, seed=n) for n in (5, 1, 17, 9)]


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "qwen3", "mistral"])
def test_cached_equals_naive(name):
    model = labkit.weights.from_hf(oracles.build(name))
    naive = labkit.generate(model, PROMPTS, 20, cache="none")
    assert all(oracles.lead(model, *said) > 2 * GATE for said in zip(PROMPTS, naive))
    for cache in ("static", "paged"):
        assert labkit.generate(model, PROMPTS, 20, cache=cache) == naive


@pytest.mark.parametrize("cache", ["none", "static", "paged"])
def test_a_batch_equals_its_requests_alone(model, cache):
    assert labkit.generate(model, PROMPTS, 16, cache=cache) == [
        labkit.generate(model, [p], 16, cache=cache)[0] for p in PROMPTS
    ]


def test_greedy_equals_transformers(model):
    theirs = oracles.build("llama-gqa")
    for prompt in PROMPTS:
        reply = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0
        )[0, len(prompt) :]
        assert labkit.generate(model, [prompt], 16) == [reply.tolist()]


def test_stop_ends_one_request_and_is_kept(model):
    free = labkit.generate(model, PROMPTS, 16)
    stop = free[0][3]
    cut = labkit.generate(model, PROMPTS, 16, stop=[stop])
    for a, b in zip(free, cut):
        assert b == (a[: a.index(stop) + 1] if stop in a else a)


def test_the_models_own_stop_is_the_default(model):
    free = labkit.generate(model, PROMPTS[:1], 16)[0]
    stops = labkit.GPT(model.config.replace(eos=(free[2], 1))).eval()
    stops.load_state_dict(model.state_dict())
    assert labkit.generate(stops, PROMPTS[:1], 16)[0] == free[: free.index(free[2]) + 1]
    assert labkit.generate(stops, PROMPTS[:1], 16, stop=())[0] == free


def test_a_seed_gives_the_same_tokens_in_any_company(model):
    warm = [Sampling(temperature=0.9, top_p=0.95, seed=s) for s in range(4)]
    together = labkit.generate(model, PROMPTS, 16, sampling=warm)
    alone = [labkit.generate(model, [p], 16, sampling=s)[0] for p, s in zip(PROMPTS, warm)]
    assert together == alone
    assert together != labkit.generate(model, PROMPTS, 16)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 10**6),
    st.sampled_from(["none", "static", "paged"]),
    st.data(),
)
def test_any_chunking_gives_the_same_logits(n, seed, cache, data):
    model, tokens, chunks = test_any_chunking_gives_the_same_logits.model, oracles.text(n, seed), []
    while sum(chunks) < n:
        chunks.append(data.draw(st.integers(1, n - sum(chunks))))
    gap = (labkit.logits(model, tokens, chunks, cache) - labkit.logits(model, tokens)).abs().max()
    assert gap < GATE


test_any_chunking_gives_the_same_logits.model = labkit.weights.from_hf(oracles.build("llama-gqa"))


@pytest.mark.parametrize("cache", ["none", "static", "paged"])
def test_a_stream_runs_one_forward_for_each_step_that_is_asked_for(model, cache):
    forwards = []
    hook = model.register_forward_hook(lambda *_: forwards.append(1))
    steps = decode.stream(model, PROMPTS, 6, cache=cache)
    for asked in range(7):
        assert len(forwards) == asked and not torch.is_inference_mode_enabled()
        assert (next(steps, None) is None) == (asked == 6)
    hook.remove()


def test_a_step_tells_what_was_fed_and_what_was_chosen(model):
    prompts = PROMPTS[:2]
    fed = {}
    for cache in ("none", "static"):
        made = list(decode.stream(model, prompts, 4, cache=cache))
        fed[cache] = [step.ids.tolist() for step, _, _ in made]
        for _, logits, tokens in made:
            assert tokens == dict(enumerate(logits.argmax(-1).tolist()))
        replies = decode.replies(step.tokens for step in made)
        assert replies == labkit.generate(model, prompts, 4)
    (a, b), (first, second) = prompts, replies
    assert fed["none"] == [[*a, *first[:i], *b, *second[:i]] for i in range(4)]
    assert fed["static"] == [[*a, *b], *([first[i], second[i]] for i in range(3))]


def test_who_has_stopped_is_fed_no_more(model):
    free = labkit.generate(model, PROMPTS, 16)
    stop = free[0][3]
    steps = list(decode.stream(model, PROMPTS, 16, stop=[stop]))
    lengths = [reply.index(stop) + 1 if stop in reply else 16 for reply in free]
    assert [list(s.tokens) for s in steps] == [
        [r for r, n in enumerate(lengths) if i < n] for i in range(max(lengths))
    ]


def test_a_stream_refuses_bad_arguments_before_its_first_step(model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        decode.stream(model, [[]], 4)


def test_a_checked_prompt_is_a_list_of_whole_numbers(model):
    checked = decode.check_prompt(model.config, torch.tensor([3, 4]), 5)
    assert checked == [3, 4] and {type(t) for t in checked} == {int}
    assert decode.check_stop(model.config.replace(eos=(7, 8)), None) == (7, 8)
    assert decode.check_stop(model.config, torch.tensor([3])) == (3,)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda m: labkit.generate(m, [], 4), "give at least one prompt"),
        (lambda m: labkit.generate(m, [[]], 4), "the prompt is empty"),
        (
            lambda m: labkit.generate(m, [[5, 97]], 4),
            r"token id 97 is outside the vocabulary \(0 to 96\)",
        ),
        (lambda m: labkit.generate(m, [[-1]], 4), "token id -1 is outside"),
        (
            lambda m: labkit.generate(m, [[5] * 120], 9),
            r"120 prompt tokens \+ 9 new ones exceed the model's context of 128",
        ),
        (
            lambda m: labkit.generate(m, [[5]], 0),
            "max_new_tokens must be a whole number >= 1, not 0",
        ),
        (
            lambda m: labkit.generate(m, [[5]], "4"),
            "max_new_tokens must be a whole number >= 1, not '4'",
        ),
        (
            lambda m: labkit.generate(m, [[5]], 2.5),
            "max_new_tokens must be a whole number >= 1, not 2.5",
        ),
        (
            lambda m: labkit.generate(m, [1, 2], 4),
            r"prompts must be a list of lists of token ids, such as \[\[1, 2\]\], not \[1, 2\]",
        ),
        (lambda m: labkit.generate(m, 5, 4), "prompts must be a list of lists of token ids"),
        (lambda m: labkit.generate(m, "text", 4), "prompts must be a list of lists of token ids"),
        (lambda m: labkit.generate(m, [[1.5]], 4), r"such as \[\[1, 2\]\], not \[\[1.5\]\]"),
        (
            lambda m: labkit.generate(m, [[5]], 4, stop=2),
            "stop must be a list of token ids, or None, not 2",
        ),
        (
            lambda m: labkit.logits(m, [5] * 9, chunks=3),
            "chunks must be a list of token counts, not 3",
        ),
        (
            lambda m: labkit.logits(m, [1.5]),
            r"a prompt must be a list of token ids \(whole numbers\), not \[1.5\]",
        ),
        (lambda m: Sampling(temperature=float("nan")), "temperature must be >= 0, not nan"),
        (lambda m: Sampling(temperature="0.7"), "temperature must be >= 0, not '0.7'"),
        (lambda m: Sampling(top_k=2.5), "top_k must be >= 0 .* and whole, not 2.5"),
        (lambda m: Sampling(seed="x"), "seed must be None or a whole number of 64 bits, not 'x'"),
        (lambda m: labkit.generate(m, [[5]], 4, cache="sttic"), "no cache is called 'sttic'"),
        (
            lambda m: labkit.generate(m, [[5]], 4, sampling=[Sampling()] * 2),
            "1 prompts need 1 samplings, not 2",
        ),
        (lambda m: labkit.logits(m, [5] * 129), "exceed the model's context"),
        (lambda m: labkit.logits(m, [5] * 9, [4, 4]), "sum to the 9 tokens, not 8"),
        (lambda m: labkit.logits(m, [5] * 9, [9, 0]), "at least 1 each"),
        (lambda m: labkit.logits(m, [5] * 9, []), "sum to the 9 tokens"),
    ],
)
def test_bad_input_gets_one_sentence(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_ids_may_be_tensors_and_arrays(model):
    ids = torch.tensor(PROMPTS[0])
    assert (
        labkit.generate(model, ids[None], 4)
        == labkit.generate(model, [ids.numpy()], 4)
        == labkit.generate(model, PROMPTS[:1], 4)
    )
    assert torch.equal(labkit.logits(model, ids), labkit.logits(model, PROMPTS[0]))


def test_a_stale_row_cannot_leak(model):
    """A new request in a used row sees nothing of the old one: its positions start again, and the
    mask follows positions.
    """
    caches = model.caches("static", 1, 40)
    run = lambda first, tokens: model(Step.of([(0, first, tokens)]), caches)
    with torch.inference_mode():
        run(0, oracles.text(40, 1))
        again = torch.cat([run(0, PROMPTS[2][:5]), run(5, PROMPTS[2][5:])])
    assert (again - labkit.logits(model, PROMPTS[2])).abs().max() < GATE
