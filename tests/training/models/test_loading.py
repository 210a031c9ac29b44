import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import load_model
from layerpick.training.pretraining.tokenizer import byte_tokenizer


@pytest.fixture
def folder(tiny, tmp_path):
    target = tmp_path / "model"
    shutil.copytree(tiny("qwen3").folder, target)
    return target


def refusal(*args, **kwargs) -> str:
    with pytest.raises(LayerpickError) as error:
        load_model(*map(str, args), **kwargs)
    message = str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in message and message.endswith(".")
    return message


def test_local_folder_loads_frozen_in_float32_on_the_cpu(folder):
    model = load_model(str(folder), device="cpu")
    assert model.dtype == torch.float32 and not model.model.training
    assert not any(p.requires_grad for p in model.model.parameters())
    assert load_model(str(folder), device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_weights_hash_follows_the_weights(folder):
    before = load_model(str(folder)).identity.weights_hash
    assert load_model(str(folder)).identity.weights_hash == before
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_model(str(folder)).identity.weights_hash != before


def test_missing_folder(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nothing")
    assert "does not exist" in refusal(tmp_path / "nothing.gguf")


def test_hub_without_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = refusal("nobody/no-such-model", revision="abc")
    assert "nobody/no-such-model" in message and "abc" in message and "network" in message
    assert "valid Hub id" in refusal("not a valid name")


def test_not_a_model(tmp_path):
    assert "config.json" in refusal(tmp_path)


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "truncated or damaged" in refusal(folder)


def test_missing_shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks 1 of its 2 weight files" in refusal(folder)


@pytest.mark.parametrize(
    "index", ["{}", "[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "../b.safetensors"}}']
)
def test_index_of_nothing(folder, index):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    message = refusal(folder)
    assert "model.safetensors.index.json cannot be read as an index of weight files" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(folder, value):
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name][3, 5] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"the weight {name} holds values that are infinite or not numbers" in refusal(folder)


def test_weights_too_large_for_the_format_asked_for(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] *= 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(folder)).layers
    assert "float16 cannot hold it" in refusal(folder, dtype="float16")


def test_weights_without_a_layer(folder, tiny):
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if ".layers.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lack" in refusal(folder)


def test_pickled_weights_need_permission(folder, tiny):
    (folder / "model.safetensors").unlink()
    torch.save(tiny("qwen3").model.state_dict(), folder / "pytorch_model.bin")
    assert "--allow-pickle" in refusal(folder)
    assert load_model(str(folder), allow_pickle=True).layers


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return exec, (f"open({self.file!r}, 'w').write('it ran')",)


def test_other_safetensors_do_not_stand_for_the_weights(folder, tiny):
    """Beside pickled ones transformers would read these."""
    weights = folder / "model.safetensors"
    weights.rename(folder / "head.safetensors")
    assert "no safetensors weights" in refusal(folder)
    torch.save(tiny("qwen3").model.state_dict(), folder / "pytorch_model.bin")
    assert "--allow-pickle" in refusal(folder)
    before = load_model(str(folder), allow_pickle=True).identity.weights_hash
    other = {name: 2 * value for name, value in tiny("qwen3").model.state_dict().items()}
    torch.save(other, folder / "pytorch_model.bin")
    assert load_model(str(folder), allow_pickle=True).identity.weights_hash != before


def test_an_adapter_is_not_put_in_unasked(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refusal(folder)


def test_layers_with_another_memory_are_refused(folder):
    from transformers import MambaConfig, Qwen3NextConfig

    for config in (MambaConfig(), Qwen3NextConfig()):
        config.save_pretrained(folder)
        assert "remember in another way than by keys and values" in refusal(folder)


@pytest.mark.parametrize(
    "dump", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, 2))]
)
def test_pickled_code_never_runs(folder, tmp_path, dump):
    (folder / "model.safetensors").unlink()
    dump({"lm_head.weight": Evil(tmp_path / "proof")}, folder / "pytorch_model.bin")
    assert "cannot be read" in refusal(folder, allow_pickle=True)
    assert not (tmp_path / "proof").exists()


def test_remote_code_needs_permission(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "my_own", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('remote code ran')")
    assert "--trust-remote-code" in refusal(folder)


def test_encoder_decoder_and_encoder_only(tmp_path):
    sizes = {
        "vocab_size": 258,
        "num_layers": 2,
        "d_model": 16,
        "d_ff": 16,
        "num_heads": 2,
        "d_kv": 8,
    }
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    byte_tokenizer(64).save_pretrained(tmp_path / "t5")
    assert "not a causal language model" in refusal(tmp_path / "t5")
    config = BertConfig(
        vocab_size=258,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    torch.manual_seed(0)
    bert = BertLMHeadModel(config)
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.mul_(20)
    bert.save_pretrained(tmp_path / "bert")
    byte_tokenizer(64).save_pretrained(tmp_path / "bert")
    assert "encoder" in refusal(tmp_path / "bert")


def test_no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refusal(folder)


def test_pad_token_can_be_named(folder):
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    assert "--pad-token '<|endoftext|>'" in refusal(folder)
    model = load_model(str(folder), pad_token="<|endoftext|>")
    assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id
    assert "no token 'nonsense'" in refusal(folder, pad_token="nonsense")


def test_unknown_device_and_dtype(folder):
    assert "float32" in refusal(folder, dtype="int3")
    for device in ("cuda:77", "meta", "", "no such device"):
        assert "--device cpu" in refusal(folder, device=device)


def test_damaged_gguf(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF but not really")
    assert "could not be read" in refusal(tmp_path / "model.gguf")
