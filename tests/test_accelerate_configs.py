"""The configurations of accelerate's launcher, read by its own code."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

FOLDER = Path(__file__).parent.parent / "configs" / "accelerate"
# Name -> how processes are joined, how many there are, on how many machines, and in which precision.
EXPECTED = {
    "cpu": (DistributedType.NO, 1, 1, "no"),
    "cpu_2proc": (DistributedType.MULTI_GPU, 2, 1, "no"),
    "deepspeed_zero2": (DistributedType.DEEPSPEED, 4, 1, "bf16"),
    "fsdp2": (DistributedType.FSDP, 4, 1, "bf16"),
    "multi_gpu": (DistributedType.MULTI_GPU, 4, 1, "fp16"),
    "multi_node": (DistributedType.MULTI_GPU, 8, 2, "bf16"),
    "single_gpu": (DistributedType.NO, 1, 1, "fp16"),
}
# What the training guide has of them.
OF_THE_GUIDE = {
    "single_gpu": (
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\ndowncast_bf16: 'no'\nmachine_rank: 0\n"
        "main_training_function: main\nmixed_precision: fp16\nnum_machines: 1\nnum_processes: 1\n"
        "rdzv_backend: static\nsame_network: true\ntpu_env: []\ntpu_use_cluster: false\ntpu_use_sudo: false\n"
        "use_cpu: false\n"
    ),
    "multi_gpu": (
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\ndowncast_bf16: 'no'\ngpu_ids: all\n"
        "machine_rank: 0\nmain_training_function: main\nmixed_precision: fp16\nnum_machines: 1\n"
        "num_processes: 4  # Number of GPUs\nrdzv_backend: static\nsame_network: true\ntpu_env: []\n"
        "tpu_use_cluster: false\ntpu_use_sudo: false\nuse_cpu: false\n"
    ),
}


def launched(name: str, *flags: str):
    """What `accelerate launch` makes of a file."""
    parser = launch_command_parser()
    args = parser.parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), *flags, "recipe.py", "args.json"])
    return _validate_launch_command(args)[0]


def test_there_are_seven():
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{name}.yaml" for name in EXPECTED]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_launcher_reads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    read = (config.distributed_type, config.num_processes, config.num_machines, config.mixed_precision)
    assert read == EXPECTED[name]
    assert config.use_cpu == name.startswith("cpu")


@pytest.mark.parametrize("name", EXPECTED)
def test_it_says_what_it_is_for_and_how_it_is_used(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    comment = text[: text.index("\ncompute_environment")].splitlines()
    assert all(line.startswith("# ") for line in comment)
    assert not comment[0].startswith("#     ")
    assert f"#     accelerate launch --config_file configs/accelerate/{name}.yaml" in "\n".join(comment)


@pytest.mark.parametrize("name", OF_THE_GUIDE)
def test_the_guide_s_own_stand_word_for_word(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text[text.index("compute_environment") :] == OF_THE_GUIDE[name]


def test_an_unknown_key_is_an_error(tmp_path):
    # What makes the tests above worth something.
    (tmp_path / "wrong.yaml").write_text((FOLDER / "cpu.yaml").read_text() + "number_of_processes: 2\n")
    with pytest.raises(ValueError, match="number_of_processes"):
        load_config_from_file(str(tmp_path / "wrong.yaml"))


def test_two_machines_share_out_the_processes():
    args = launched("multi_node", "--machine_rank", "1", "--main_process_ip", "127.0.0.1")
    prepare_multi_gpu_env(args)
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "4", 1)
    assert args.rdzv_endpoint == "127.0.0.1:29500"


def put_into(environment: dict[str, str], monkeypatch) -> None:
    for name, value in environment.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)


def test_fsdp2_reaches_accelerate(monkeypatch):
    """Its own class, with the environment that the launcher makes; the rest needs GPUs."""
    args = launched("fsdp2")
    assert args.use_fsdp
    put_into(prepare_multi_gpu_env(args), monkeypatch)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.activation_checkpointing is False
    assert plugin.cpu_ram_efficient_loading is False


@pytest.fixture
def process_group():
    """One process, as far as collectives are concerned."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    # Its thread may still let go of a collective's tensors, for which it needs the interpreter that waits for it here.
    time.sleep(1)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("flags", "config_class"),
    [((), BertConfig), (("--fsdp_transformer_layer_cls_to_wrap", "RobertaLayer"), RobertaConfig)],
)
def test_fsdp2_shards_an_encoder(flags, config_class, process_group, monkeypatch):
    """What accelerate does on a GPU, on the processor, where its launcher would not ask for it."""
    put_into(prepare_multi_gpu_env(launched("fsdp2", *flags)), monkeypatch)
    config = config_class(
        vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, pad_token_id=0
    )
    model = AutoModelForSequenceClassification.from_config(config)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin()),
        mixed_precision="no",
        is_main_process=True,
        device=torch.device("cpu"),
    )
    model = fsdp2_prepare_model(accelerator, model)
    sharded = [name.split(".", 1)[1] for name, part in model.named_modules() if name and isinstance(part, FSDPModule)]
    assert sharded == ["embeddings.word_embeddings", "encoder.layer.0", "encoder.layer.1"]
    model(input_ids=torch.ones(2, 5, dtype=torch.long), labels=torch.tensor([0, 1])).loss.backward()
    assert all(value.grad.full_tensor().isfinite().all() for value in model.parameters())


def test_zero_2_reaches_accelerate(monkeypatch):
    args = launched("deepspeed_zero2")
    assert args.use_deepspeed
    # As `launch_command` does before it hands over.
    args.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(args)
    put_into(environment, monkeypatch)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 2
    # The Trainer fills these in from the run's arguments.
    assert plugin.deepspeed_config["gradient_accumulation_steps"] == "auto"
    assert plugin.deepspeed_config["gradient_clipping"] == "auto"
    assert plugin.offload_optimizer_device == plugin.offload_param_device == "none"
