"""What can be told of a page without a browser; `make report-check` looks at it in one."""

import html.parser
import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest

from hf_ext import (
    DataArguments,
    Predictions,
    PreprocessingArguments,
    Supplements,
    compare_models,
    preflight,
    preprocess,
    write_report,
)
from hf_ext.evaluation.comparison import all_metrics
from hf_ext.evaluation.figures import COLOURS
from hf_ext.evaluation.pages import TEMPLATES

NAMES = ["negative", "positive", "neither"]


def predictions(seed, names=NAMES):
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, len(names), 120)
    logits = rng.normal(size=(120, len(names)))
    logits[np.arange(120), labels] += 1
    return Predictions.from_logits(
        logits, labels, ["some text"] * 120, problem_type="single_label_classification", label_names=names
    )


def report_page(folder):
    data = {"validation": predictions(1), "test": predictions(2, NAMES[:2])}
    train = [{"text": f"a text of number {i}", "label": NAMES[i % 2]} for i in range(40)]
    supplements = Supplements(
        augmented=[("before", "after")],
        preflight=preflight({"train": train, "test": train[:5]}, progress=False).as_dict(),
        comparisons={"test": compare_models({"a": predictions(1), "b": predictions(3)}, [("a", "b")])},
    )
    return write_report(
        folder / "report.html",
        title="A report",
        splits=data,
        metrics={name: {**all_metrics(split), "loss": 0.5} for name, split in data.items()},
        intervals={},
        history=[{"step": 1, "loss": 0.5, "learning_rate/head": 0.1}, {"step": 2, "loss": 0.4}],
        run={"command": ["x"], "versions": {"torch": "2"}, "times": {"seconds": 3}},
        notes=["A note."],
        supplements=supplements,
    )


def data_page(folder):
    rows = [{"text": f"text  number {i}", "label": NAMES[i % 2]} for i in range(60)]
    (folder / "raw").mkdir()
    (folder / "raw" / "train.json").write_text(json.dumps([*rows, rows[0], {**rows[1], "label": "neither"}]))
    preprocess(folder / "raw", folder / "out", PreprocessingArguments(), DataArguments(), progress=False)
    return folder / "out" / "data_report.html"


@pytest.fixture(scope="module", params=[report_page, data_page])
def page(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


class Elements(html.parser.HTMLParser):
    """Every element: tag, attributes, the tags around it, and the text in it."""

    VOID = {"meta", "link", "hr", "br", "wbr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.around, self.found = [], []
        self.feed(text)
        self.close()
        assert self.around == []

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, **dict(attributes), "around": [outer["tag"] for outer in self.around], "text": ""}
        self.found.append(element)
        if tag not in self.VOID:
            self.around.append(element)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.around.pop()

    def handle_endtag(self, tag):
        assert self.around.pop()["tag"] == tag

    def handle_data(self, data):
        for outer in self.around:
            outer["text"] += data

    def all(self, *tags):
        return [element for element in self.found if element["tag"] in tags]


def test_document_and_landmarks(page):
    elements = Elements(page)
    assert page.startswith("<!DOCTYPE html>") and elements.all("html")[0]["lang"] == "en"
    assert [len(elements.all(tag)) for tag in ("head", "header", "main", "h1", "script")] == [1, 1, 1, 1, 0]
    assert all(nav["aria-label"] for nav in elements.all("nav"))
    assert elements.all("title")[0]["text"] == elements.all("h1")[0]["text"] != ""
    assert "width=device-width" in page
    # All that is read stands in a landmark.
    for element in elements.all("p", "table", "h2", "h3", "figure", "details"):
        assert "main" in element["around"]


def test_headings_skip_no_level(page):
    levels = [int(element["tag"][1]) for element in Elements(page).all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_and_links(page):
    elements = Elements(page).found
    ids = Counter(element["id"] for element in elements if "id" in element)
    assert max(ids.values()) == 1
    links = [element["href"] for element in elements if element["tag"] == "a"]
    assert links[0] == "#main" and len(set(links)) == len(links)
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    for element in elements:
        assert set(element.get("aria-labelledby", "").split()) <= set(ids)


def test_the_contents_name_every_section_and_heading(page):
    elements = Elements(page)
    linked = {element["href"][1:]: element["text"] for element in elements.all("a") if "nav" in element["around"]}
    sections = {element["id"] for element in elements.all("section")}
    assert sections <= set(linked)
    headings = {element["id"]: element["text"] for element in elements.all("h3") if "id" in element}
    assert {key: linked[key] for key in headings} == headings


def test_nothing_is_loaded_from_elsewhere(page):
    elements = Elements(page).found
    loaded = [
        element.get(name) for element in elements for name in ("src", "srcset", "action", "data") if name in element
    ]
    assert all(source.startswith("data:image/png;base64,") for source in loaded)
    assert [element["href"] for element in elements if element["tag"] == "link"] == ["data:,"]
    addresses = set(re.findall(r"\w+://[^\s\"'<>)]*", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"url\((?!#)|@import|@font-face|\son\w+=", page)


def test_tables_figures_and_controls_have_names(page):
    elements = Elements(page)
    tables = elements.all("table")
    assert tables and len(elements.all("caption")) == len(tables)
    assert all(caption["text"].strip() for caption in elements.all("caption"))
    assert all(cell["scope"] in ("row", "col") for cell in elements.all("th"))
    regions = [element for element in elements.found if element.get("role") == "region"]
    # Each table scrolls in a region of its own that the keyboard reaches.
    assert len(regions) == len(tables) and all(region["tabindex"] == "0" for region in regions)
    labels = [region["aria-label"] for region in regions]
    assert len(set(labels)) == len(labels)
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in elements.all("svg"))
    assert all(image["alt"] for image in elements.all("img"))
    assert all("label" in control["around"] for control in elements.all("input"))


# ---- Colours ----


def colours():
    style = (TEMPLATES / "page.html.j2").read_text()
    pairs = re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", style)
    return {scheme: {name: both[place] for name, *both in pairs} for place, scheme in enumerate(("light", "dark"))}


def channels(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def contrast(first, second):
    """As WCAG 2.2 defines it, of colours given by their channels."""

    def luminance(given):
        linear = np.where(given <= 0.04045, given / 12.92, ((given + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_measured_as_it_should_be():
    assert contrast(channels("#fff"), channels("#000000")) == pytest.approx(21)
    # Known from the standard's own examples: the lightest grey that passes on white.
    assert contrast(channels("#767676"), channels("#fff")) == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_figures_can_be_read(scheme):
    found = {name: channels(colour) for name, colour in colours()[scheme].items()}
    assert set(found) == {"page", "text", "quiet", "line", "soft", "link"}
    for ground in ("page", "soft"):
        for name in ("text", "quiet", "link"):
            assert contrast(found[name], found[ground]) >= 4.5
    assert all(contrast(channels(colour), found["page"]) >= 3 for colour in COLOURS)
    # The darkest shade of the confusion matrix, as its style mixes it.
    style = (TEMPLATES / "report.html.j2").read_text()
    red, green, blue, share = re.search(
        r"rgba\((\d+), (\d+), (\d+), calc\(var\(--share\) \* ([\d.]+)\)\)", style
    ).groups()
    mixed = float(share) * np.array([int(red), int(green), int(blue)]) / 255 + (1 - float(share)) * found["page"]
    assert contrast(found["text"], mixed) >= 4.5
