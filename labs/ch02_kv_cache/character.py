"""CH02-CHARACTER: the small model that the page runs, what it is worth, and what a cache saves it.

Bits per character on text it has not seen, beside a 5-gram's; how many of the words that it writes
are words; and the milliseconds of a character in a browser, with a cache and without. `--set
steps=4000` trains it first, on from where an earlier training stopped, and leaves the weights in
the user's cache folder. All on the CPU, whatever the device.
"""

import contextlib
import re
import shutil

from labkit import plotting
from labkit.lab import Lab
from labkit.paths import cache_folder
from labkit.tables import only, progress

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROMPT = 40  # characters of held-out text that a sample goes on from
TEMPERATURE = 0.7


def run(device, *, characters, samples, contexts, repeats, steps=0):
    """A row for each model, and one for each length of text in the browser.

    characters: of held-out text to score. samples: texts to write. contexts: lengths to time, each
    `repeats` times. steps: to train for first; 0 takes the weights that are kept.
    """
    import numpy as np

    from labkit.widgets import model_file
    from labkit_labs.common import character, ngrams, novels

    text, held_out = novels.split()
    path = character.WEIGHTS
    if steps:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "character.safetensors"
        model, made = character.train(text, steps, folder / "character.pt")
        character.keep(model, made, path)
    config, weights, made = character.kept(path)
    model = character.for_browser(path)
    small = character.in_torch(config, model_file.unpack(model).weights)
    held_out = held_out[:characters]
    ids = character.encode(held_out)
    grams = ngrams.bits(np.array(character.encode(text)), np.array(ids), 5, config.vocab_size)
    words = set(re.findall(r"[a-z']+", text.lower()))
    rows = [
        {"model": "5-gram", "bits": grams},
        {
            "model": "as trained",
            "bits": character.held_out_bits(character.in_torch(config, weights), ids),
            "parameters": sum(w.size for w in weights.values()),
            "steps": int(made["steps"]),
            "seconds": made["seconds"],
        },
        {
            "model": "8 bits",
            "bits": character.held_out_bits(small, ids),
            "parameters": sum(w.size for w in weights.values()),
            "file_bytes": len(model_file.script(model)[1]),
            "greedy_words": real_words(small, held_out, samples, words, 0),
            "drawn_words": real_words(small, held_out, samples, words, TEMPERATURE),
        },
    ]
    return rows + in_browser(model, held_out, contexts, repeats)


def real_words(model, held_out: str, samples: int, words: set[str], temperature: float) -> float:
    """The share of written words that the training text has. The first and last of each sample are
    cut, and don't count.
    """
    from labkit import Sampling, generate
    from labkit_labs.common import character

    apart = (len(held_out) - PROMPT) // samples
    prompts = [held_out[i * apart : i * apart + PROMPT] for i in range(samples)]
    written = generate(
        model,
        [character.encode(prompt) for prompt in prompts],
        model.config.max_context - PROMPT,
        sampling=Sampling(temperature=temperature, seed=0),
    )
    found = []
    for ids in written:
        text = "".join(character.ALPHABET[i] for i in ids).lower()
        found += re.findall(r"[a-z']+", text)[1:-1]
    return sum(word in words for word in found) / len(found)


@contextlib.contextmanager
def browser_page():
    """A blank page of Chromium; None where there is no Chromium or no playwright to drive it."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        yield None
        return
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


# the last character of a text, again and again, both ways in turn: milliseconds of each
TIMED = """async ([ids, repeats]) => {
  const last = [...ids].slice(-1), cache = emptyCache(language), still = () => null;
  await read(language, ids.slice(0, -1), cache, noWork(), still);
  const times = { cached: [], uncached: [] };
  for (let i = 0; i < repeats; i++) {
    const kept = { length: cache.length, layers: cache.layers.map(({ keys, values }) => ({
      keys: [...keys], values: [...values] })) };
    for (const [kind, from] of [["cached", kept], ["uncached", emptyCache(language)]]) {
      const work = noWork();
      await read(language, ids, from, work, still);
      times[kind].push(work.ms);
    }
  }
  return times;
}"""


def in_browser(model: dict, held_out: str, contexts: list[int], repeats: int) -> list[dict]:
    """A row for each length: milliseconds of its last character, with a cache and without."""
    from labkit.widgets import base, model_file
    from labkit_labs.common import character

    rows = []
    with browser_page() as page:
        if page is None:
            print("no Chromium and playwright here: the browser's times are left out")
            return []
        page.add_script_tag(content=model_file.script(model)[1])
        page.add_script_tag(content=base.asset("language_model.js"))
        page.evaluate("() => { globalThis.language = unpack(labkitModel); }")
        ids = character.encode(held_out)
        page.evaluate(TIMED, [ids[:16], 20])  # nothing is timed cold
        for context in progress(contexts, "lengths"):
            times = page.evaluate(TIMED, [ids[:context], repeats])
            middle = {kind: sorted(of_kind)[repeats // 2] for kind, of_kind in times.items()}
            rows.append(
                {
                    "model": "in the browser",
                    "context": context,
                    "cached_ms": middle["cached"],
                    "uncached_ms": middle["uncached"],
                    "multiple": middle["uncached"] / middle["cached"],
                }
            )
    return rows


def go(rows):
    grams = only(rows, model="5-gram")["bits"]
    trained = only(rows, model="as trained")["bits"]
    small = only(rows, model="8 bits")
    if small["bits"] >= grams:
        return (
            f"the model needs {small['bits']:.2f} bits a character, a 5-gram {grams:.2f}: train it"
            " longer"
        )
    if small["bits"] - trained > 0.02:
        return (
            f"8 bits cost {small['bits'] - trained:.3f} bits a character: look for a row with one"
            " large weight"
        )
    if min(small["greedy_words"], small["drawn_words"]) < 0.8:
        return (
            f"only {small['drawn_words']:.0%} of its words are words: it is not worth showing yet"
        )
    timed = [r for r in rows if "context" in r]
    if timed and timed[-1]["multiple"] < timed[-1]["context"] / 8:
        return (
            f"at {timed[-1]['context']} characters the cache saves a factor of only"
            f" {timed[-1]['multiple']:.1f}: look whether the cached loop reads more than one"
            " character"
        )


def plot(rows):
    timed = [r for r in rows if "context" in r]
    lengths = [r["context"] for r in timed]
    times = {
        "no cache": [r["uncached_ms"] for r in timed],
        "KV cache": [r["cached_ms"] for r in timed],
    }
    return plotting.lines(
        lengths,
        times,
        x_label="characters in the text",
        y_label="ms for the next one",
        log_y=True,
        alt="Milliseconds of a character in the browser: "
        + "; ".join(f"{name} from {ms[0]:.2g} to {ms[-1]:.2g}" for name, ms in times.items()),
    )


def notice(rows):
    grams = only(rows, model="5-gram")["bits"]
    small = only(rows, model="8 bits")
    said = (
        f"On text it has not seen the model needs {small['bits']:.2f} bits a character, a 5-gram of"
        f" the same text {grams:.2f}. Of the words it writes {small['greedy_words']:.0%} are in the"
        f" novels when it takes the most likely character, and {small['drawn_words']:.0%} when it"
        " draws one."
    )
    timed = [r for r in rows if "context" in r]
    if timed:
        last = timed[-1]
        said += (
            f" At {last['context']} characters the next one takes {last['uncached_ms']:,.0f} ms in"
            f" the browser without a cache and {last['cached_ms']:.2g} ms with it."
        )
    return said


LAB = Lab(
    title="A model of our own, in the page",
    objective="See what a model of 426,112 weights is worth, and what a cache saves it.",
    asks="Is it better than counting, and does the cache show in a browser?",
    notice=notice,
    columns={
        "model": "model",
        "bits": "bits a character|.3f",
        "parameters": "weights|,",
        "file_bytes": "file|,",
        "greedy_words": "real words, most likely|.1%",
        "drawn_words": "drawn|.1%",
        "context": "characters",
        "uncached_ms": "ms without a cache|.1f",
        "cached_ms": "with it|.2f",
        "multiple": "times faster|.0f",
    },
    run=run,
    sizes={
        "full": {
            "characters": 200_000,
            "samples": 40,
            "contexts": [16, 32, 64, 128, 192, 256],
            "repeats": 15,
        },
        "quick": {"characters": 4_000, "samples": 2, "contexts": [16, 64], "repeats": 3},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=3,
    cpu_only=True,
)
