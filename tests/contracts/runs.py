"""Training runs of the contract tests, each in processes of its own.

A fork server imports torch and transformers once; every run is forked from it, so a killed or a two-process run costs
a fraction of a second instead of ten.

With HF_EXT_TEST_DEVICE=cuda in the environment the runs of one process are on the GPU, in deterministic kernels.
"""

import gc
import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from starting import as_in_a_program, exit_code_of, own_port, process_context
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from hf_ext import (
    ExtendedTrainer,
    ExtendedTrainingArguments,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    TrainingInterrupted,
    TrainingTerminated,
)

# At least `hf_ext.optimizers.MIN_ROWS`, so that the embedding rows are updated sparsely.
VOCABULARY = 3000
ON_GPU = os.environ.get("HF_EXT_TEST_DEVICE") == "cuda"


@dataclass(frozen=True)
class Case:
    """One training run."""

    output_dir: str
    model: str = "bert"
    problem_type: str = "single_label_classification"
    # "extended", "plain", or what makes one of a case, its arguments and its callbacks.
    trainer: str | Callable = "extended"
    batch_size: int = 16
    accumulation: int = 1
    rows: int = 32
    epochs: int = 2
    sampling: str = "sequential"
    dropout: float = 0.0
    # `None`: rows in one process, all in several; to compare the two, `False`.
    sparse: bool | None = None
    save_steps: int = 0
    kill_at_step: int = 0
    resume: bool = False
    use_cpu: bool = not ON_GPU
    callbacks: tuple = ()
    arguments: dict = field(default_factory=dict)
    # What else the trainer is made with, in place of the rows and the collator here; `trainer_class` makes it.
    settings: Callable[["Case"], dict] | None = None

    def but(self, **changes) -> "Case":
        return replace(self, **changes)


def make_rows(case: Case) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(case.rows):
        length = int(torch.randint(3, 12, (1,), generator=generator))
        label = {
            "single_label_classification": index % 3,
            "multi_label_classification": [float(index % 2), float(index % 3 == 0), float(index % 5 == 0)],
            "regression": index / case.rows,
        }[case.problem_type]
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": label})
    return rows


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([r["labels"] for r in rows])}


def make_model(case: Case):
    set_seed(0)
    shared = {
        "num_labels": 1 if case.problem_type == "regression" else 3,
        "problem_type": case.problem_type,
        "vocab_size": VOCABULARY,
    }
    if case.model == "textcnn":
        config = TextCNNConfig(embed_size=8, num_filters=4, dropout_prob=case.dropout, **shared)
        return TextCNNForSequenceClassification(config)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=case.dropout,
        attention_probs_dropout_prob=case.dropout,
        **shared,
    )
    return BertForSequenceClassification(config)


class KillAt(TrainerCallback):
    """Ends the process as a power cut would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Witness(TrainerCallback):
    """Which parameters each step moved, and a digest of all of them after it."""

    def __init__(self):
        self.before, self.moved, self.digests = {}, [], []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.before = {name: value.detach().clone() for name, value in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        parameters = dict(model.named_parameters())
        self.moved.append([name for name, value in parameters.items() if not torch.equal(value, self.before[name])])
        digest = hashlib.sha256()
        for value in parameters.values():
            digest.update(value.detach().cpu().numpy().tobytes())
        self.digests.append(digest.hexdigest())


def make_trainer(case: Case):
    arguments = ExtendedTrainingArguments(
        output_dir=case.output_dir,
        per_device_train_batch_size=case.batch_size,
        per_device_eval_batch_size=4,
        gradient_accumulation_steps=case.accumulation,
        num_train_epochs=case.epochs,
        train_sampling_strategy=case.sampling,
        logging_steps=1,
        save_strategy="steps" if case.save_steps else "no",
        save_steps=case.save_steps or 500,
        use_cpu=case.use_cpu,
        disable_tqdm=True,
        **{"learning_rate": 1e-3, **case.arguments},
    )
    rows = make_rows(case)
    callbacks = [callback() for callback in case.callbacks]
    if case.kill_at_step:
        callbacks.append(KillAt(case.kill_at_step))
    if callable(case.trainer):
        return case.trainer(case, arguments, callbacks)
    settings = {
        "model": make_model(case),
        "args": arguments,
        "train_dataset": rows,
        "eval_dataset": rows,
        "data_collator": collate,
        "callbacks": callbacks,
        **(case.settings(case) if case.settings is not None else {}),
    }
    if case.trainer == "plain":
        return Trainer(**settings)
    trainer_class = settings.pop("trainer_class", ExtendedTrainer)
    # They are the default on a CPU alone; a run on the GPU is compared with runs there.
    sparse = False if ON_GPU and case.sparse is None else case.sparse
    return trainer_class(**settings, sparse_embeddings=sparse)


def run(case: Case) -> dict:
    """Train, and report what the contracts compare."""
    trainer = make_trainer(case)
    witness = Witness()
    trainer.callback_handler.callbacks.insert(0, witness)
    seen = []
    training_step = trainer.training_step

    def recording_step(model, inputs, *args, **kwargs):
        seen.append(inputs["input_ids"].sum(dim=1).tolist())
        return training_step(model, inputs, *args, **kwargs)

    trainer.training_step = recording_step
    trainer.train(resume_from_checkpoint=get_last_checkpoint(case.output_dir) if case.resume else None)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return {
        "loss": [log["loss"] for log in logs],
        "grad_norm": [log["grad_norm"] for log in logs],
        "logs": logs,
        "evaluations": [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log],
        "train_loss": trainer.state.log_history[-1]["train_loss"],
        "eval_loss": trainer.evaluate()["eval_loss"],
        "weights": {name: value.cpu().clone() for name, value in trainer.model.state_dict().items()},
        "batches": seen,
        "moved": witness.moved,
        "digests": witness.digests,
        "optimizer": type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)).__name__,
        "steps": trainer.state.global_step,
    }


# ---- Processes ----


def _enter(case: Case, rank: int, world_size: int, port: int, results: str) -> None:
    as_in_a_program()
    torch.set_num_threads(1)
    if not case.use_cpu:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    # The Trainer collects garbage when it begins: not through all that the parent has imported.
    gc.freeze()
    if world_size > 1:
        os.environ.update(
            WORLD_SIZE=str(world_size),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    path = Path(results) / f"{rank}.pt"
    try:
        torch.save(run(case), path)
    except (Exception, TrainingInterrupted, TrainingTerminated) as error:  # handed to the parent
        torch.save({"error": f"{type(error).__name__}: {error}", "status": getattr(error, "status", 1)}, path)


def launch(case: Case, world_size: int = 1) -> list[dict]:
    """Run a case in `world_size` processes; a list of their reports, or of `None` for those that were killed."""
    if ON_GPU and world_size > 1:
        case = case.but(use_cpu=True)
    context = process_context("runs")
    results = Path(case.output_dir) / "reports"
    results.mkdir(parents=True, exist_ok=True)
    for old in results.glob("*.pt"):
        old.unlink()
    with own_port() as port:
        processes = [
            context.Process(target=_enter, args=(case, rank, world_size, port, str(results)), name=f"{rank} of {case}")
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            exit_code_of(process)
    paths = [results / f"{rank}.pt" for rank in range(world_size)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths]


def left_by_a_kill(case: Case, whole: Case, step: int, world_size: int = 1) -> Case:
    """
    `case`, killed at the end of a step, to be resumed. It is really killed, and seen to leave what `whole`, which was
    saved after every step, had saved by then.
    """
    assert launch(case.but(kill_at_step=step), world_size) == [None] * world_size
    left, saved = Path(case.output_dir), Path(whole.output_dir)
    names = {path.name for path in left.glob("checkpoint-*")}
    assert names == {f"checkpoint-{number}" for number in range(1, step)}
    newest = f"checkpoint-{step - 1}"
    files = {path.name for path in (left / newest).iterdir()}
    assert files == {path.name for path in (saved / newest).iterdir()}
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", *(name for name in files if "rng_state" in name)):
        assert (left / newest / name).read_bytes() == (saved / newest / name).read_bytes(), name
    return case.but(resume=True)


def saved_before(case: Case, whole: Case, step: int) -> Case:
    """`case`, to be resumed from what [`left_by_a_kill`] would find, taken from the folder of `whole`."""
    name = f"checkpoint-{step - 1}"
    shutil.copytree(Path(whole.output_dir) / name, Path(case.output_dir) / name)
    return case.but(resume=True)


def train(case: Case, world_size: int = 1) -> dict:
    """Run a case that has to end well; the report of rank 0, after checking that all ranks hold the same weights."""
    reports = launch(case, world_size)
    assert None not in reports, f"a process died: {case}"
    assert not any("error" in report for report in reports), [report.get("error") for report in reports]
    for other in reports[1:]:
        assert_same_weights(reports[0], other)
        assert reports[0]["digests"] == other["digests"], "ranks differ on the way"
    return reports[0]


def assert_same_weights(one: dict, other: dict, **tolerance) -> None:
    assert one["weights"].keys() == other["weights"].keys()
    for name, value in one["weights"].items():
        if tolerance:
            torch.testing.assert_close(value, other["weights"][name], msg=lambda m, n=name: f"{n}: {m}", **tolerance)
        else:
            assert torch.equal(value, other["weights"][name]), f"{name} differs"
