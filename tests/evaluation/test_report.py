import html.parser
import math
import re
import time

import numpy as np
import pytest

from hf_ext import Supplements, results_table, write_report
from hf_ext.evaluation.comparison import compare_models
from hf_ext.evaluation.figures import speed_plot
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.report import Table
from hf_ext.evaluation.run_cost import cost_table
from hf_ext.evaluation.split_views import hardest_rows

SCRIPT = "<script>alert(1)</script>"
METRICS = {"validation": {"accuracy": 0.75, "loss": 0.5}, "test": {"loss": 0.6, "f1_macro": 0.7, "accuracy": 0.8}}
INTERVALS = {"test": {"accuracy": (0.71, 0.89)}}
HISTORY = [
    {"step": 10, "epoch": 0.5, "loss": 0.9, "grad_norm": math.nan, "learning_rate": 1e-4},
    {"step": 20, "epoch": 1.0, "loss": 0.4, "grad_norm": 1.0, "learning_rate": 5e-5},
    {"step": 20, "epoch": 1.0, "eval_loss": 0.6, "eval_accuracy": 0.7},
    {"step": 20, "epoch": 1.0, "train_runtime": 3.0},
]
RUN = {
    "command": f"train {SCRIPT}",
    "seed": 42,
    "arguments": {"learning_rate": 1e-4, "train_file": "/home/someone/data/train.csv", "lora": {"rank": 8}},
    "versions": {},
}


def single_label(rows=300, classes=3, labelled=True):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1.5
    return Predictions.from_logits(
        logits,
        labels if labelled else None,
        [f"{SCRIPT} row {i} " + "long " * 100 for i in range(rows)],
        problem_type="single_label_classification",
        label_names=["a<b", *(f"class {i}" for i in range(1, classes))],
    )


def multi_label():
    rng = np.random.default_rng(0)
    return Predictions.from_logits(
        rng.normal(size=(50, 3)),
        rng.integers(0, 2, (50, 3)),
        ["text"] * 50,
        problem_type="multi_label_classification",
        label_names=["x", "y", "z"],
    )


def regression():
    values = np.random.default_rng(0).normal(size=(2500, 2))
    return Predictions.from_logits(
        values[:, :1], values[:, 1], [("left", "right")] * 2500, problem_type="regression", label_names=["value"]
    )


def render(path, splits, **kwargs):
    arguments = {"title": "A title", "metrics": {}, "intervals": {}, "history": [], "run": {}, "notes": [], **kwargs}
    return write_report(path, splits=splits, **arguments).read_text(encoding="utf-8")


class Outline(html.parser.HTMLParser):
    """Checks that tags are balanced and collects what the tests look at."""

    VOID = {"meta", "link", "hr", "br", "img", "input"}

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.ids, self.loaded, self.text = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.loaded += [attrs[name] for name in ("src", "href", "xlink:href") if name in attrs]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


def only_one_class():
    data = single_label(rows=20)
    return Predictions(data.problem_type, data.label_names, data.probabilities, np.zeros(20, dtype=int), data.texts)


CURVES, SURE = ["Precision-recall and ROC curves"], ["Answers only where the model is sure", "Calibration"]
CASES = {
    "two classes": ({"test": single_label(classes=2)}, ["Confusion", "Classes", *CURVES, "Thresholds", *SURE, "Most"]),
    "three classes": ({"test": single_label()}, ["Confusion", "Classes", *CURVES, *SURE, "Most", "Hardest rows"]),
    "many classes": (
        {"test": single_label(classes=25)},
        ["Most confused pairs", "Classes", *CURVES, *SURE, "Most confident", "Hardest rows"],
    ),
    "multi-label": ({"test": multi_label()}, ["Classes", *CURVES, "Thresholds", "Calibration", "Most", "Hardest rows"]),
    "one class": ({"test": only_one_class()}, ["Confusion", "Classes", *SURE, "Most confident", "Hardest rows"]),
    "one row": ({"test": single_label(rows=1)}, ["Confusion", "Classes", *SURE, "Hardest rows"]),
    "regression": ({"test": regression()}, ["Predicted against true values", "Largest errors"]),
    "unlabelled": ({"predict": single_label(labelled=False)}, ["Predicted classes"]),
    "empty": ({"test": single_label(rows=0)}, []),
    "two splits": (
        {"validation": multi_label(), "test": regression()},
        ["Classes", *CURVES, "Thresholds", "Calibration", "Most", "Hardest rows", "Predicted", "Largest"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_page_is_sound_and_shows_only_what_there_is(case, tmp_path):
    splits, headings = CASES[case]
    page = render(tmp_path / "report.html", splits)
    outline = Outline(page)

    found = re.findall("<h3.*?>(.*?)</h3>", page)
    assert len(found) == len(headings) and all(a.startswith(b) for a, b in zip(found, headings, strict=True))
    assert [outline.count(tag) for tag in ("header", "nav", "main", "h1", "script")] == [1, 1, 1, 1, 0]
    assert outline.count("section") == outline.count("h2") == 1 + len(splits)
    assert outline.count("table") == outline.count("caption")
    assert all("scope" in attrs for tag, attrs in outline.tags if tag == "th")
    assert all(attrs["aria-label"] for tag, attrs in outline.tags if tag == "svg")
    assert len(outline.ids) == len(set(outline.ids))
    # Nothing to load: only places on the page and the empty icon.
    assert all(link == "data:," or link[1:] in outline.ids for link in outline.loaded)
    assert "url(http" not in page and "@import" not in page


def test_everything_is_escaped(tmp_path):
    page = render(
        tmp_path / "report.html",
        {SCRIPT: single_label()},
        title=SCRIPT,
        metrics={SCRIPT: {SCRIPT: 0.5}},
        history=[{"step": 1, f"learning_rate/{SCRIPT}$": 0.1}],
        run=RUN,
        notes=[SCRIPT],
    )
    outline = Outline(page)
    assert outline.count("script") == 0
    assert "<script" not in page
    assert "a<b" in outline.text
    assert any(text.startswith(f"{SCRIPT} row") for text in outline.text)
    assert max(len(text) for text in outline.text if " row " in text) == 301


def test_full_report(tmp_path):
    page = render(
        tmp_path / "report.html",
        {"test": single_label()},
        metrics=METRICS,
        intervals=INTERVALS,
        history=HISTORY,
        run=RUN,
        notes=["10 % was held out."],
    )
    outline = Outline(page)
    text = "\n".join(outline.text)
    labels = [attrs["aria-label"] for tag, attrs in outline.tags if tag == "svg"]
    assert [label.split(" by step")[0] for label in labels[:4]] == [
        "Loss",
        "Evaluation score",
        "Gradient norm",
        "Learning rate",
    ]
    assert "loss from 0.9 to 0.4; eval_loss from 0.6 to 0.6" in labels[0]
    for expected in ("10 % was held out.", "0.7100 to 0.8900", "lora.rank", "All other metrics", "0.7500"):
        assert expected in text


def test_numbers_match_scikit_learn(tmp_path):
    from sklearn.metrics import average_precision_score, classification_report, confusion_matrix, roc_auc_score

    data = single_label()
    page = render(tmp_path / "report.html", {"test": data})
    cells = [int(cell) for cell in re.findall(r'style="--share:[0-9.]*">(\d+)<', page)]
    assert cells == confusion_matrix(data.labels, data.predictions).ravel().tolist()
    report = classification_report(data.labels, data.predictions, target_names=data.label_names, output_dict=True)
    for index, name in enumerate(data.label_names[1:], start=1):
        row = re.search(rf'<th scope="row">{name}</th>(<td class="number">.*)</tr>', page)[1]
        shown = [float(value) for value in re.findall(r">([0-9.]+)<", row)]
        scores = [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
        one_vs_rest = data.labels == index, data.probabilities[:, index]
        scores += [average_precision_score(*one_vs_rest), roc_auc_score(*one_vs_rest)]
        assert shown == pytest.approx(scores, abs=5e-5)
    truth = np.eye(3)[data.labels]
    for average in ("micro", "macro"):
        row = re.search(rf"<em>{average} average</em>.*", page)[0]
        found = [
            score(truth, data.probabilities, average=average) for score in (average_precision_score, roc_auc_score)
        ]
        assert [float(value) for value in re.findall(r">([0-9.]+)<", row)] == pytest.approx(found, abs=5e-5)


def test_hardest_rows_are_not_the_most_confident_errors(tmp_path):
    probabilities = np.array([[0.49, 0.48, 0.03], [0.90, 0.06, 0.04], [0.20, 0.30, 0.50], [0.1, 0.1, 0.8]])
    data = Predictions("single_label_classification", ["a", "b", "c"], probabilities, np.array([2, 1, 2, 0]), ["x"] * 4)
    assert hardest_rows(data) == [(0, 0.03), (1, 0.06), (3, 0.1), (2, 0.5)]
    assert data.most_confident_errors() == [(1, 0.9), (3, 0.8), (0, 0.49)]
    several = np.array([[0.9, 0.2], [0.5, 0.6]])
    data = Predictions("multi_label_classification", ["a", "b"], several, np.array([[1, 1], [0, 1]]), ["x"] * 2)
    assert hardest_rows(data) == [(0, pytest.approx(0.9 * 0.2)), (1, pytest.approx(0.5 * 0.6))]


def test_classes_that_are_missing_are_named(tmp_path):
    logits = np.zeros((6, 4))
    logits[:, 0] = 1
    data = Predictions.from_logits(
        logits, np.array([0, 1, 1, 0, 2, 2]), ["x"] * 6, problem_type="single_label_classification",
        label_names=["a", "<b>", "c", "d"],
    )  # fmt: skip
    text = "\n".join(Outline(render(tmp_path / "report.html", {"test": data})).text)
    assert "Never predicted, so their precision counts as 0: <b>, c." in text
    assert "No row of this split is of: d. Their scores count as 0, and no curve can be drawn." in text


def test_what_a_run_cost(tmp_path):
    run = {
        "command": ["x"],
        "times": {"seconds": 7384.2},
        "memory": {"peak_cpu_memory_mib": 1234},
        "model": {"parameters": 22_713_216, "megabytes": 90.853},
        "hardware": {"cpu": "A processor", "torch_threads": 2},
    }
    history = [{"step": 90, "train_runtime": 185.4, "train_samples_per_second": 812.34}, {"step": 90, "eval_loss": 1}]
    assert cost_table(run, history) == [
        ("Whole run", "2 h 3 min"), ("Training", "3 min 5 s"), ("Training rows a second", "812"),
        ("Training steps", "90"), ("Parameters", "22.7M"), ("Size of the weights", "90.9 MB"),
        ("Peak memory", "1,234 MiB"), ("Processor", "A processor"), ("Threads", "2"),
    ]  # fmt: skip
    assert cost_table({"times": "unknown"}, []) == []
    page = render(tmp_path / "report.html", {}, run=run, history=history)
    assert [name for name in ("cost", "configuration", "environment") if f'<section id="{name}"' in page] == [
        "cost", "configuration", "environment"
    ]  # fmt: skip
    assert "2 h 3 min" in page and "7384.2" in page


def test_equal_arguments_give_equal_bytes(tmp_path):
    pages = [
        render(tmp_path / name, {"a": single_label(), "b": regression()}, metrics=METRICS, history=HISTORY, run=RUN)
        for name in ("1.html", "2.html")
    ]
    assert pages[0] == pages[1]
    assert len(list(tmp_path.iterdir())) == 2


def test_many_rows_and_a_long_history_stay_small_and_fast(tmp_path):
    history = [{"step": i, "loss": 1 / (i + 1), "learning_rate": 0.1} for i in range(20_000)]
    start = time.monotonic()
    page = render(tmp_path / "report.html", {"test": single_label(rows=20_000, classes=20)}, history=history)
    assert time.monotonic() - start < 15
    assert len(page) < 1_000_000


# ---- Models compared ----

COSTS = {
    "teacher": {"parameters": 22_713_216, "texts_per_second": 131.2, "texts_per_second_range": (120.0, 140.0)},
    SCRIPT: {"parameters": 4_012_345, "texts_per_second": 6123.4, "texts_per_second_range": (6000.0, 6200.0)},
}


def compared(data, costs=None, names=("teacher", SCRIPT, "control")):
    """The same rows, answered by models that are wrong more and more often."""
    generator = np.random.default_rng(1)
    models = dict.fromkeys(names, data)
    for count, name in enumerate(names[1:], start=1):
        probabilities = data.probabilities.copy()
        rows = generator.permutation(len(probabilities))[: 40 * count]
        probabilities[rows] = np.roll(probabilities[rows], 1, axis=1) if probabilities.shape[1] > 1 else 0.0
        models[name] = Predictions(data.problem_type, data.label_names, probabilities, data.labels, data.texts)
    return compare_models(models, [(names[1], names[0]), (names[2], names[1])], costs)


def test_models_compared(tmp_path):
    comparison = compared(single_label(), COSTS)
    page = render(tmp_path / "report.html", {}, supplements=Supplements(comparisons={f"test {SCRIPT}": comparison}))
    outline = Outline(page)
    text = [part.strip() for part in outline.text if part.strip()]
    assert outline.count("script") == 0 and "<script" not in page
    assert '<a href="#models">Models compared</a>' in page
    assert all(sentence in text for sentence in comparison.sentences)
    for model in comparison.models.values():
        assert f"{model.metrics['accuracy']:.4f}" in text and f"{model.metrics['brier']:.4f}" in text
    for expected in ("22.7M", "4.01M", "131", "6,123", "120 to 140", "texts/s"):
        assert expected in text
    pair = comparison.pairs[0]
    told = next(part for part in text if part.startswith("Accuracy: p"))
    assert f"Equal answers: {100 * pair.agreement:.1f} % of 300 rows" in told
    assert f"Only {SCRIPT} is right: {pair.only_model.count}." in told
    assert f"Only teacher is right: {pair.only_baseline.count}." in told
    assert outline.count("svg") == 1
    assert max(len(part) for part in text if part.startswith(f"{SCRIPT} row")) == 301
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.count("table") == outline.count("caption")


def test_several_comparisons_of_every_kind_share_a_page(tmp_path):
    kinds = {
        "one": single_label(rows=100),
        "two": single_label(rows=100),
        "several": multi_label(),
        "values": regression(),
    }
    comparisons = {name: compared(data, COSTS) for name, data in kinds.items()}
    outline = Outline(render(tmp_path / "report.html", {}, supplements=Supplements(comparisons=comparisons)))
    assert outline.count("svg") == 4
    assert len(outline.ids) == len(set(outline.ids))
    assert sum(part == "All metrics of values" for part in outline.text) == 1
    assert "Subset accuracy" in outline.text and "Pearson correlation" in outline.text


def test_runs_side_by_side(tmp_path):
    columns = [("Trial", ""), ("Accuracy", "number")]
    tables = [
        Table("Trials", "All of them", columns, [["1", "0.9100"], ["2", SCRIPT]]),
        Table("Many", "More than fit", columns, [[str(row), "0.5"] for row in range(21)]),
    ]
    page = render(tmp_path / "report.html", {}, supplements=Supplements(tables=tables))
    outline = Outline(page)
    assert '<a href="#table-1">Trials</a>' in page and '<section id="table-2"' in page and "<script" not in page
    assert '<th scope="row">1</th><td class="number">0.9100</td>' in page
    assert [kind in page for kind in ('class="scroll"', 'class="scroll tall"')] == [True, True]
    assert SCRIPT in outline.text and len(outline.ids) == len(set(outline.ids))


def test_speeds_are_drawn_only_where_they_were_measured():
    assert speed_plot(compared(single_label(rows=100)), "test") is None
    assert speed_plot(compared(single_label(rows=100), {"teacher": COSTS["teacher"]}), "test") is None
    svg = speed_plot(compared(single_label(rows=100), COSTS), "test")
    assert "at 6,123 texts a second" in svg and ">control<" not in svg and ">teacher<" in svg
    near = {"teacher": {"texts_per_second": 4000.0}, SCRIPT: {"texts_per_second": 4300.0}}
    assert ">5,000<" in speed_plot(compared(single_label(rows=100), near), "test")


def test_results_table_is_aligned():
    assert results_table(METRICS, INTERVALS).splitlines() == [
        "split       metric     value     95 % interval",
        "validation  accuracy  0.7500",
        "test        accuracy  0.8000  [0.7100, 0.8900]",
        "test        f1_macro  0.7000",
    ]
    assert "my_metric" in results_table({"test": {"my_metric": math.nan}}, {})
