"""Each export, put to its trainer's own rule for choosing what is trained, on models of 20 layers.

PEFT's and BAdam's rules are their own functions. Axolotl, ms-swift, NeMo RL and prime-rl need more
than a test should install: their rules are written down here as their sources state them, and
Axolotl's and ms-swift's own functions are asked where they are installed. Those two were read in
axolotl-ai-cloud/axolotl, `src/axolotl/utils/freeze.py` (`LayerNamePattern`; release 0.19.0 and
commit 067b021), and modelscope/ms-swift, `swift/utils/transformers_utils.py` (`freeze_parameters`,
`activate_parameters`; release 4.6.0 and commit 3602360).
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from itertools import accumulate

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from layerpick.selector.export.plan import Plan, layer_names
from layerpick.selector.export.table import TARGETS, find_target
from layerpick.training.errors import LayerpickError
from layerpick.training.models.sources import ModelFolder

SIZES = {"vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
GATED = {
    **SIZES, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 20,
    "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
CHOSEN = {
    "gpt2": {**SIZES, "n_embd": 32, "n_head": 4, "n_layer": 20, "n_positions": 64},
    "phi3": GATED,
    "qwen3": {**GATED, "head_dim": 8},
    "qwen3_moe": {**GATED, "head_dim": 8, **EXPERTS},
}
LAYERS = (1, 11)
AXOLOTL_PATTERNS = tuple(
    f"unfrozen_parameters: ['{pattern}']"
    for pattern in ("^model.layers.1", r"^model\.layers\.1\.", "^model.layers.1.*", "^model.+mlp")
)
"""Such as the export does not write: the rule that is written down here must agree on them too."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(family)`: a folder with the config of a model of 20 layers, and that model."""
    made = {}

    def make(family):
        if family not in made:
            config = AutoConfig.for_model(family, **CHOSEN[family])
            folder = tmp_path_factory.mktemp(family)
            config.save_pretrained(folder)
            made[family] = folder, config
        folder, config = made[family]
        return folder, AutoModelForCausalLM.from_config(config)

    return make


def plan_of(folder, layers):
    names = layer_names(ModelFolder("tiny", folder, None, ()), layers)
    return Plan(
        model=str(folder), revision=None, names=names, reason="By hand.", task="math",
        algorithm="grpo", stop=("\n",), learning_rate=1e-4, steps=2, prompts=2, group_size=2,
        max_new_tokens=4, temperature=1.0,
    )  # fmt: skip


def own_parameters(network, family, layer):
    """The layer's parameters by the module that holds them, not by name."""
    stack = network.transformer.h if family == "gpt2" else network.model.layers
    own = {id(parameter) for parameter in stack[layer].parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in own}


def own_linear(network, family, layer):
    stack = network.transformer.h if family == "gpt2" else network.model.layers
    own = {id(m) for m in stack[layer].modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    return {name for name, module in network.named_modules() if id(module) in own}


def trained_names(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


# --- What is trained, by each trainer's rule ---


def python_value(text, name):
    """What a script assigns to a name, or passes under it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value)
    return None


def option(text, name):
    """The values of a command's option, in `--name a b` or `name=value` form."""
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    if name in words:
        rest = words[words.index(name) + 1 :]
        end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
        return rest[:end]
    (found,) = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return found.strip("[]").split(",")


def swift_options(text):
    """Ratio, prefixes, and the pattern that a comment offers in their place."""
    (ratio,) = option(text, "--freeze_parameters_ratio")
    (comment,) = re.findall(r"--trainable_parameters_regex (.*)", text)
    (pattern,) = shlex.split(comment)
    return float(ratio), option(text, "--trainable_parameters"), pattern


def by_prefix(prefixes, network):
    return {n for n, _ in network.named_parameters() if n.startswith(tuple(prefixes))}


def by_axolotl(text, network):
    """`re.match`, every dot literal but one before a plus; `[3:8]` at the end would be rows."""
    found = yaml.safe_load(text)["unfrozen_parameters"]
    assert not any(pattern.endswith("]") for pattern in found)
    literal = [".+".join(part.replace(".", r"\.") for part in p.split(".+")) for p in found]
    return {n for n, _ in network.named_parameters() if any(re.match(p, n) for p in literal)}


def by_ms_swift(network, ratio, prefixes, pattern=None):
    """Frozen are the first parameters that hold at most `ratio` of all numbers; then some are freed
    again: by how their names begin, and by a pattern that is searched in them."""
    named = list(network.named_parameters())
    totals = list(accumulate(parameter.numel() for _, parameter in named))
    left = {
        name for (name, _), total in zip(named, totals, strict=True) if total > totals[-1] * ratio
    }
    searched = {name for name, _ in named if pattern is not None and re.search(pattern, name)}
    return left | by_prefix(prefixes, network) | searched


def by_peft(network, **lora):
    """Names of the modules that PEFT adapts."""
    model = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", **lora))
    adapted = {n.split(".lora_")[0] for n, _ in model.named_parameters() if ".lora_" in n}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained)
    return {name.removeprefix("base_model.model.") for name in adapted}


def by_nemo_rl(targets, network):
    """The name itself, or a pattern for the whole of it whose `*` is anything, dots unescaped."""
    patterns = [re.compile(f"^{target.replace('*', '.*')}$") for target in targets]
    return {
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
        and (name in targets or any(p.match(name) for p in patterns))
    }


def by_prime_rl(targets, network):
    """`re.search` for what has a character of patterns in it, else one part of the name."""
    return {
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and any(re.search(t, name) for t in targets)
    }


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("family", CHOSEN)
def test_exactly_the_layers_own_weights(models, family, layer):
    folder, network = models(family)
    plan, expected = plan_of(folder, str(layer)), own_parameters(network, family, layer)
    texts = {name: find_target(name).files(plan) for name in ("trl", "axolotl", "ms-swift")}
    assert by_prefix(python_value(texts["trl"]["train.py"], "TRAINED"), network) == expected
    assert by_axolotl(texts["axolotl"]["axolotl.yaml"], network) == expected
    ratio, prefixes, pattern = swift_options(texts["ms-swift"]["train.sh"])
    assert by_ms_swift(network, ratio, prefixes) == expected
    assert by_ms_swift(network, ratio, (), pattern) == expected


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("family", CHOSEN)
def test_lora_in_exactly_the_layers_linear_modules(models, family, layer):
    folder, network = models(family)
    plan, expected = plan_of(folder, str(layer)), own_linear(network, family, layer)
    transposed = {"fan_in_fan_out": True} if family == "gpt2" else {}

    def fresh():
        return models(family)[1]

    def files(name):
        return find_target(name).files(plan)

    own = {}
    exec(files("peft")["lora.py"], own)
    model = get_peft_model(fresh(), own["LORA"])
    adapted = {n.split(".lora_")[0] for n, _ in model.named_parameters() if ".lora_" in n}
    assert {name.removeprefix("base_model.model.") for name in adapted} == expected
    config = yaml.safe_load(files("axolotl")["axolotl-lora.yaml"])
    assert config.get("lora_fan_in_fan_out", False) == bool(transposed)
    assert config["gradient_checkpointing_kwargs"] == {"use_reentrant": False}
    chosen = {
        "target_modules": config["lora_target_modules"],
        "layers_to_transform": config["peft_layers_to_transform"],
        "layers_pattern": config["peft_layers_pattern"],
    }
    assert by_peft(fresh(), **chosen, **transposed) == expected
    script = files("unsloth")["lora.py"]
    asked = {key: python_value(script, key) for key in chosen}
    assert by_peft(fresh(), **asked, **transposed) == expected
    names = {
        "trl": "--lora_target_modules",
        "verl": "actor_rollout_ref.model.target_modules",
        "openrlhf": "--ds.lora.target_modules",
        "skyrl": "trainer.policy.model.lora.target_modules",
    }
    for name, key in names.items():
        listed = option(files(name)["train_lora.sh" if name == "trl" else "train.sh"], key)
        assert by_peft(fresh(), target_modules=listed, **transposed) == expected
    if family != "gpt2":  # these two adapt torch's linear modules alone
        lora = yaml.safe_load(files("nemo-rl")["lora.yaml"])["policy"]["automodel_cfg"]["lora_cfg"]
        assert by_nemo_rl(lora["target_modules"], network) == expected
        toml = tomllib.loads(files("prime-rl")["rl.toml"])
        listed = toml["trainer"]["model"]["lora"]["target_modules"]
        assert by_prime_rl(listed, network) == expected


@pytest.mark.filterwarnings("ignore:BAdam expect model")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("family", ["phi3", "qwen3", "qwen3_moe"])
def test_badam_holds_on_to_exactly_the_layer(models, family, layer):
    """Its own optimizer: what it trains, and that it does not forget Adam's state on the way."""
    from badam import BlockOptimizer

    folder, network = models(family)
    text = find_target("llama-factory").files(plan_of(folder, str(layer)))["badam.yaml"]
    config = yaml.safe_load(text)
    named = list(network.named_parameters())
    optimizer = BlockOptimizer(
        base_optimizer=torch.optim.AdamW([p for _, p in named], lr=1e-3),
        named_parameters_list=named,
        switch_block_every=config["badam_switch_interval"],
        start_block=config["badam_start_block"],
        switch_mode=config["badam_switch_mode"],
        verbose=0,
    )
    trained = {name for name, parameter in named if parameter.requires_grad}
    assert trained == own_parameters(network, family, layer)
    tokens = torch.arange(12).reshape(2, 6)
    for steps in (1, 2, 3):
        network(input_ids=tokens, labels=tokens).loss.backward()
        if family == "qwen3_moe":  # an expert that no token reached has no gradient
            for _, parameter in named:
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        counts = {int(state["step"]) for state in optimizer.base_optimizer.state.values()}
        assert counts == {steps}


def test_badam_finds_no_block_in_gpt2(models):
    with pytest.raises(LayerpickError, match=r"no block transformer\.h\.1\."):
        find_target("llama-factory").files(plan_of(models("gpt2")[0], "1"))


def test_several_layers_together(models):
    folder, network = models("qwen3")
    plan = plan_of(folder, "1,11")
    expected = own_parameters(network, "qwen3", 1) | own_parameters(network, "qwen3", 11)
    trained = python_value(find_target("trl").files(plan)["train.py"], "TRAINED")
    assert by_prefix(trained, network) == expected
    assert by_axolotl(find_target("axolotl").files(plan)["axolotl.yaml"], network) == expected
    with pytest.raises(LayerpickError, match="one block at a time"):
        find_target("llama-factory").files(plan)


def test_what_does_not_work_is_known(models):
    """The traps that the exports step around are real: with each of them, more is trained."""
    _, network = models("qwen3")
    wrong = by_axolotl("unfrozen_parameters: ['^model.layers.1']", network)
    assert wrong > own_parameters(network, "qwen3", 1) | own_parameters(network, "qwen3", 11)
    assert by_axolotl(r"unfrozen_parameters: ['^model\.layers\.1\.']", network) == set()
    assert by_axolotl("unfrozen_parameters: ['^model.layers.1.*']", network) == wrong
    assert by_ms_swift(network, 0.5, ()) > own_parameters(network, "qwen3", 11)
    everywhere = {"target_modules": ["q_proj"], "layers_to_transform": [1]}
    assert by_peft(models("qwen3")[1], **everywhere) == {"model.layers.1.self_attn.q_proj"}
    with pytest.raises(ValueError, match="layers_to_transform"):
        LoraConfig(target_modules=".*q_proj", layers_to_transform=[1])
    pattern = r"model\.layers\.1\.self_attn\.q_proj"
    assert len(by_peft(models("qwen3")[1], target_modules=pattern)) == 1
    assert len(by_peft(models("qwen3_moe")[1], target_modules=pattern)) == 20
    full = ["model.layers.2.self_attn.q_proj"]
    passed_over = by_peft(models("qwen3")[1], target_modules=full, layers_to_transform=[1])
    assert passed_over == set(full)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("family", CHOSEN)
def test_axolotls_own_function(models, family, layer):
    freeze = pytest.importorskip("axolotl.utils.freeze")
    folder, network = models(family)
    export = find_target("axolotl").files(plan_of(folder, str(layer)))["axolotl.yaml"]
    for text in (export, *AXOLOTL_PATTERNS):
        freeze.freeze_layers_except(network, yaml.safe_load(text)["unfrozen_parameters"])
        assert trained_names(network) == by_axolotl(text, network)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("family", CHOSEN)
def test_ms_swifts_own_functions(models, family, layer):
    swift = pytest.importorskip("swift.utils.transformers_utils")
    folder, network = models(family)
    text = find_target("ms-swift").files(plan_of(folder, str(layer)))["train.sh"]
    ratio, prefixes, pattern = swift_options(text)
    for chosen in ((ratio, prefixes), (ratio, [], pattern), (0.5, []), (0.0, [])):
        network.requires_grad_(True)
        swift.freeze_parameters(network, chosen[0], [])
        swift.activate_parameters(network, *chosen[1:])
        assert trained_names(network) == by_ms_swift(network, *chosen)


def test_every_target_says_what_it_was_made_for(models):
    plan = plan_of(models("qwen3")[0], "11")
    for name in TARGETS:
        for path, text in find_target(name).files(plan).items():
            if path.endswith((".py", ".sh", ".yaml", ".toml")) and path != "reward.py":
                first, *_ = text.splitlines()
                assert first.startswith("# Layer 11 of 20 of "), path
                assert re.search(r"^# Made by layerpick \S+ for \S+", text, re.MULTILINE), path


def test_what_cannot_be_exported_is_said(models):
    folder = models("qwen3")[0]
    with pytest.raises(LayerpickError, match="layers are 0 to 19"):
        plan_of(folder, "20")
    with pytest.raises(LayerpickError, match="--to 'trlx' is unknown: use trl, axolotl"):
        find_target("trlx")
