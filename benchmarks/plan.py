"""All measurements, in the order of docs/results.md.

Every part of every benchmark has an entry here: run_all.py runs them at full size, smoke.py at toy size.
"""

from measurement import PRINTED, Measurement
from needs import COMPILER, FILMS, NLPAUG, SETS
from pretrained import GLOVE, MINILM

KIM_SETS = ("trec6", "sst2", "sst1", "mr", "subj")
EDA_SETS = ("sst2", "trec6", "mr", "subj")
TEACHER_SETS = ("sst2", "trec6", "r8")
TASK_SETS = ("mrpc", "sst2", "trec6")

KIM = (
    Measurement(
        "kim2014_random",
        "kim2014.py",
        "--data_dir {data_dir} --variants rand",
        "--sets mr trec6 --seeds 1 --results outputs/kim2014.jsonl --num_folds 2 --num_train_epochs 1",
        {PRINTED: r"^\| mr \| rand \| 76\.1 \| \d"},
        sets=KIM_SETS,
    ),
    Measurement(
        "kim2014_vectors",
        "kim2014.py",
        "--data_dir {data_dir} --variants static non-static",
        "--sets sst1 --seeds 1 --results outputs/kim2014_vectors.jsonl --word_vectors {word_vectors}",
        {PRINTED: r"^\| sst1 \| non-static \| 48\.0 \| \d"},
        sets=KIM_SETS,
        needs=(GLOVE,),
    ),
)

PUBLIC_SETS = (
    Measurement(
        "public_sets_run",
        "public_sets.py",
        "run --data_dir {data_dir}",
        "--encoder {encoder} --sets clinc150 --seeds 1 --num_train_epochs 1",
        {"outputs/public_sets/results.jsonl": '"out-of-scope recall"'},
        sets=("banking77", "clinc150", "goemotions", "tweeteval_irony", "tweeteval_offensive", "r8", "mrpc"),
        needs=(MINILM,),
    ),
    Measurement(
        "public_sets_tables",
        "public_sets.py",
        "tables",
        "",
        {PRINTED: r"^\| set \| model \| metric \|"},
        after=("public_sets_run",),
    ),
)
PEERS = (
    Measurement(
        "peers_floor",
        "peers.py",
        "floor --data_dir {data_dir}",
        "--sets trec6 mrpc goemotions --seeds 1",
        {"outputs/peers/floor.json": '"goemotions"'},
        sets=tuple(SETS),
    ),
    Measurement(
        "peers_setfit",
        "peers.py",
        "setfit --data_dir {data_dir} --seeds 5",
        None,
        {"outputs/peers/setfit/trec6_64_4_hf_ext.json": '"accuracy"'},
        sets=("sst1", "trec6"),
        needs=(MINILM,),
    ),
    Measurement(
        "peers_fasttext",
        "peers.py",
        "fasttext --data_dir {data_dir}",
        None,
        {"outputs/peers/fasttext/r8_speed.json": '"settings"'},
        sets=("sst2", "trec6", "r8"),
        needs=(COMPILER,),
        threads=1,
    ),
    Measurement(
        "peers_finder",
        "peers.py",
        "finder --data_dir {data_dir}",
        None,
        {"outputs/peers/finder/sst2_4_hf_ext.json": '"settings"'},
        sets=("trec6", "sst2"),
    ),
    Measurement("peers_tables", "peers.py", "tables", "", {PRINTED: r"^\| trec6 \| "}, after=("peers_floor",)),
)
CONVOLUTION = (
    Measurement(
        "convolution",
        "convolution.py",
        "",
        "--rounds 1 --texts 32",
        {PRINTED: r"^\| 300 d, 100 \| train \| "},
        needs=(FILMS,),
    ),
)


def throughput(part: str, rounds: int, toy: str, printed: str, **more) -> Measurement:
    name, flags = f"training_throughput_{part}", f"--data_dir {{data_dir}} --rounds {rounds}"
    more = {"sets": ("trec6",), "needs": (MINILM,), **more}
    toy = f"--encoder {{encoder}} --max_steps 4 {toy}"
    return Measurement(name, "training_throughput.py", f"{part} {flags}", toy, {PRINTED: printed}, **more)


THROUGHPUT_MINILM = (
    throughput("minilm", 3, "--rounds 1", r"^\| hf_ext, its defaults \| \d"),
    throughput(
        "compile",
        3,
        "--rounds 1 --compile_backend eager",
        r"^\| the best flags \+ --torch_compile \| \d",
        needs=(MINILM, COMPILER),
    ),
    throughput("accuracy", 2, "--rounds 1", r"^\| hf_ext, its defaults \| \d"),
)
THROUGHPUT_TEXTCNN = (
    throughput("textcnn", 5, "--rounds 1", r"^\| hf_ext, its defaults \(sparse.*\| \d"),
    throughput("textcnn_accuracy", 3, "--rounds 1", r"^\| hf_ext, its defaults \(sparse.*\| \d"),
)
OVERHEAD = (throughput("overhead", 7, "--rounds 1", r"^On a model of almost no cost, a step takes -?\d"),)
IMPORT = (
    Measurement(
        "training_throughput_import",
        "training_throughput.py",
        "import --rounds 7",
        "--rounds 1 --warmups 0",
        {PRINTED: r"^difference: -?\d"},
    ),
)


def transfer(name: str, arguments: str, toy: str, leaves: dict[str, str], **more) -> Measurement:
    more = {"sets": ("trec6", "sst2"), "needs": (MINILM,), **more}
    toy = f"--encoder {{encoder}} {toy}"
    return Measurement(name, "transfer.py", f"{arguments} --data_dir {{data_dir}}", toy, leaves, **more)


TRANSFER = (
    transfer("transfer_ablation", "ablation", "--seeds 1", {"outputs/transfer.jsonl": '"part": "ablation"'}),
    transfer("transfer_grid_first", "grid --seeds 1", "", {"outputs/transfer.jsonl": '"part": "grid", .*"seed": 0'}),
    transfer(
        "transfer_grid",
        "grid --seeds 3",
        "--seeds 2",
        {"outputs/transfer.jsonl": '"part": "grid", .*"seed": 1'},
        after=("transfer_grid_first",),
    ),
    transfer("transfer_finder", "finder --seeds 3", "--seeds 1", {"outputs/transfer.jsonl": '"part": "finder"'}),
    Measurement(
        "transfer_tables",
        "transfer.py",
        "tables",
        "",
        {PRINTED: r"^\| freez \| \d[\s\S]*^\| sst2, textcnn \| "},
        after=("transfer_ablation", "transfer_grid", "transfer_finder"),
    ),
    transfer(
        "transfer_stages",
        "stages --rounds 3",
        "--rounds 1",
        {PRINTED: r"^\| head \+ 3 layers \| \d"},
        sets=("trec6",),
    ),
)
DATA = (
    Measurement(
        "data_augmentation",
        "data.py",
        "augmentation --data_dir {data_dir} --wordnet_dir {wordnet_dir} --rounds 7",
        "--rounds 1",
        {PRINTED: r"^\| random_deletion \| [\s\S]*^\| 100,000 \| [\s\S]*^\| 1,000,000 \| "},
        sets=("mr",),
        needs=(NLPAUG,),
        threads=1,
    ),
    Measurement(
        "data_preflight",
        "data.py",
        "preflight --rows 100000 1000000 --rounds 2",
        "--rows 2000 --rounds 1 --encoder {encoder}",
        {PRINTED: r"^CPU time a row, .*: \d"},
    ),
    Measurement(
        "data_preflight_counts",
        "data.py",
        "preflight_counts --data_dir {data_dir}",
        "--counts {counts}",
        {PRINTED: r"^0 differ\."},
        sets=tuple(SETS),
    ),
    Measurement(
        "data_preprocessing",
        "data.py",
        "preprocessing --rows 200000 2000000",
        "--rows 500 --outputs 'near json'",
        {PRINTED: r"^\| [\d,]+ \| near \| json \| \d"},
    ),
    Measurement(
        "synonym_table",
        "synonym_table.py",
        "--wordnet_dir {wordnet_dir} --output outputs/synonym_table/wordnet_synonyms.txt.gz",
        "",
        {PRINTED: r": [\d,]+ sets of [\d,]+ words, "},
    ),
)
AUGMENTATION = (
    Measurement(
        "augmentation_run",
        "augmentation.py",
        "run --data_dir {data_dir} --wordnet_dir {wordnet_dir}",
        "--sets subj --sizes all --seeds 2 --width 8",
        {"outputs/augmentation.jsonl": '"set": "subj", "arm": "nlpaug"'},
        sets=EDA_SETS,
        needs=(NLPAUG,),
    ),
    Measurement(
        "augmentation_tables",
        "augmentation.py",
        "tables",
        "",
        {PRINTED: r"^\| all \| subj \| \d"},
        after=("augmentation_run",),
    ),
)
CURRICULUM = (
    Measurement(
        "curriculum_run",
        "curriculum.py",
        "run --data_dir {data_dir} --sets mr --scorers cross_review",
        "--sets trec6 --scorers cross_review length --noises 0.3 --epochs 2 --seeds 2",
        {"outputs/curriculum.jsonl": '"mode": "anti", "scorer": "cross_review"'},
        sets=("mr", "trec6"),
    ),
    Measurement(
        "curriculum_tables",
        "curriculum.py",
        "tables",
        "",
        {PRINTED: r"best on validation:[\s\S]*\| anti \| cross review \| \d"},
        after=("curriculum_run",),
    ),
)
CLASS_LOSSES = (
    Measurement(
        "class_losses_run",
        "class_losses.py",
        "run --data_dir {data_dir}",
        "--sets trec50 --losses plain focal --seeds 1 --num_train_epochs 1",
        {"outputs/class_losses/results.jsonl": '"arm": "focal"'},
        sets=("sms_spam", "trec50", "r8"),
    ),
    Measurement(
        "class_losses_tables",
        "class_losses.py",
        "tables",
        "",
        {PRINTED: r"^\| trec50 \| focal \| 1 \| \d"},
        after=("class_losses_run",),
    ),
)
DISTILLATION = (
    Measurement(
        "distillation_sentences",
        "distillation.py",
        "sentences",
        "--reviews 20",
        {PRINTED: r"^[\d,]+ sentences: "},
        needs=(FILMS, NLPAUG),
    ),
    Measurement(
        "distillation_teachers",
        "distillation.py",
        "teachers --data_dir {data_dir}",
        "--sets sst2 --encoder {encoder} --num_train_epochs 1",
        {"outputs/distillation/teachers/sst2/all_results.json": '"test_accuracy"'},
        sets=TEACHER_SETS,
        needs=(MINILM,),
    ),
    Measurement(
        "distillation_students",
        "distillation.py",
        "students --data_dir {data_dir}",
        "--sets sst2 --seeds 1 --embed_size 16 --num_train_epochs 1",
        {"outputs/distillation/students/sst2_0/distillation.json": '"control"'},
        sets=TEACHER_SETS,
        after=("distillation_sentences", "distillation_teachers"),
    ),
    Measurement(
        "distillation_tables",
        "distillation.py",
        "tables",
        "",
        {PRINTED: r"^\| sst2 \| \d"},
        after=("distillation_students",),
    ),
    Measurement(
        "distillation_speed",
        "distillation.py",
        "speed --data_dir {data_dir}",
        "--sets sst2 --rounds 1 --threads 1",
        {PRINTED: r"'300 d, 100 filters'.*'speed_up': "},
        sets=TEACHER_SETS,
        after=("distillation_teachers",),
    ),
    Measurement(
        "distillation_labelling",
        "distillation.py",
        "labelling --data_dir {data_dir}",
        "--texts 60 --rounds 1 --threads 1",
        {PRINTED: r"^median \d", "outputs/distillation/labelling.json": '"ratios"'},
        sets=("sst2",),
        after=("distillation_sentences", "distillation_teachers"),
    ),
)
MULTITASK = (
    Measurement(
        "multitask_run",
        "multitask.py",
        "run --data_dir {data_dir}",
        "--encoder {encoder} --seeds 1 --num_train_epochs 1",
        {"outputs/multitask/0/multitask.json": '"single-task"'},
        sets=TASK_SETS,
        needs=(MINILM,),
    ),
    Measurement(
        "multitask_tables",
        "multitask.py",
        "tables",
        "",
        {PRINTED: r"^\| mrpc \| \d"},
        after=("multitask_run",),
    ),
    Measurement(
        "multitask_cost",
        "multitask.py",
        "cost --data_dir {data_dir}",
        "--encoder {encoder} --rounds 1",
        {PRINTED: r"^median \d"},
        sets=TASK_SETS,
        needs=(MINILM,),
    ),
)
TRUST = (
    Measurement(
        "results_bootstrap",
        "results.py",
        "bootstrap --rounds 3",
        "--rows 200 --resamples 50 --rounds 1",
        {PRINTED: r"^\| regression \| \d+ \| permutation \| \d"},
        threads=1,
    ),
    Measurement(
        "results_coverage",
        "results.py",
        "coverage --resamples 500",
        "--rows 50 --draws 3 --resamples 50",
        {PRINTED: r"^\| 50 \| 0\.55 to 0\.95; all 0\.97 \| 0\.05 \| \d"},
        threads=1,
    ),
    Measurement(
        "results_report",
        "results.py",
        "report",
        "--rows 300 --rounds 1",
        {PRINTED: r"^\| regression \| \d"},
    ),
    Measurement(
        "results_kfold_overhead",
        "results.py",
        "kfold_overhead --data_dir {data_dir}",
        "--folds 2 --num_train_epochs 1",
        {PRINTED: r"folds, [\d.]+ s: training .*, overhead \d"},
        sets=("mr",),
    ),
    Measurement(
        "results_kfold_workers",
        "results.py",
        "kfold_workers --data_dir {data_dir}",
        "--folds 2 --rounds 1 --seconds 0.3 --against 'one worker' --num_train_epochs 1",
        {PRINTED: r"^two workers against one worker: \d"},
        sets=("mr",),
    ),
)


def operations(part: str, toy: str) -> Measurement:
    left, toy = {f"outputs/operations/{part}.json": '"measured"'}, f"--encoder {{encoder}} {toy}"
    return Measurement(f"operations_{part}", "operations.py", part, toy, left, needs=(MINILM, FILMS))


OPERATIONS = (
    operations("monitors", "--rounds 1 --steps 3 --models MiniLM 'TextCNN 128 d'"),
    operations("start", "--rounds 1 --warmups 0"),
    operations("checkpoint", "--rounds 1"),
    Measurement(
        "operations_tables",
        "operations.py",
        "tables",
        "",
        {PRINTED: r"^\| MiniLM \| [\s\S]*^\| recipe \| [\s\S]*^\| checkpoint of MiniLM \| "},
        after=("operations_monitors", "operations_start", "operations_checkpoint"),
    ),
    Measurement("kills", "kills.py", "--kills 50 --seed 0", "--kills 1", {PRINTED: "^Differences: none, bit for bit"}),
    Measurement("processes", "processes.py", "", "--only run_classification", {PRINTED: r"^run_classification .*\d"}),
    Measurement(
        "sparse_gradients", "sparse_gradients.py", "", "--runs 1 --steps 3", {PRINTED: r"^\| dense \| \d+ \| 0 \|"}
    ),
)

# Section -> its measurements.
PLAN: dict[str, tuple[Measurement, ...]] = {
    "Accuracy of the TextCNN against Kim (2014)": KIM,
    "Training throughput: MiniLM": THROUGHPUT_MINILM,
    "Training throughput: TextCNN": THROUGHPUT_TEXTCNN,
    "The TextCNN's convolution on a CPU": CONVOLUTION,
    "Overhead of ExtendedTrainer": OVERHEAD,
    "Import": IMPORT,
    "Transfer learning": TRANSFER,
    "Data tools": DATA,
    "Easy Data Augmentation": AUGMENTATION,
    "Curriculum": CURRICULUM,
    "Class weights, focal loss, label smoothing": CLASS_LOSSES,
    "Distillation": DISTILLATION,
    "Multi-task training": MULTITASK,
    "Results one can trust": TRUST,
    "Operations": OPERATIONS,
    "Beyond the papers: public sets": PUBLIC_SETS,
    "Peers": PEERS,
}
MEASUREMENTS = tuple(measurement for section in PLAN.values() for measurement in section)
# A part that no one calls -> the measurement that does.
CALLED_BY = {"data.py preflight_once": "data_preflight"}


def chosen(names: list[str] | None) -> list[Measurement]:
    """The measurements of these names, with those whose results they read; all if there are no names."""
    known = {measurement.name: measurement for measurement in MEASUREMENTS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise SystemExit(f"--only: there is no measurement {', '.join(unknown)}; there are {', '.join(known)}.")
    wanted = set(names or known)
    while more := {name for each in wanted for name in known[each].after} - wanted:
        wanted |= more
    return [measurement for measurement in MEASUREMENTS if measurement.name in wanted]
