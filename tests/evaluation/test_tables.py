import math

import pytest

from hf_ext.evaluation.tables import aligned, format_cost, format_p


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("parameters", 2, "2"),
        ("parameters", 999, "999"),
        ("parameters", 1500, "1.50k"),
        ("parameters", 999_600, "1.00M"),
        ("parameters", 22_713_216, "22.7M"),
        ("parameters", 7_000_000_000, "7.00B"),
        ("megabytes", 0.0123, "0.012"),
        ("megabytes", 90.85, "90.8"),
        ("texts_per_second", 6123.4, "6,123"),
        ("texts_per_second", 99.96, "100"),
        ("p50_ms", 9.996, "10.0"),
        ("p95_ms", 0.2149, "0.21"),
        ("speed_up", 46.71, "46.7x"),
        ("speed_up", None, ""),
    ],
)
def test_costs(name, value, text):
    assert format_cost(name, value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(1.0, "p = 1"), (0.0519, "p = 0.052"), (0.001, "p = 0.001"), (0.0004, "p < 0.001"), (math.nan, "p undefined")],
)
def test_p_values(p, text):
    assert format_p(p) == text


def test_columns():
    assert aligned([("a", "bb"), ("long", "1")]) == "a     bb\nlong   1"
    assert aligned([("a", "b", "c"), ("x", "yy", "")], names=2) == "a  b   c\nx  yy"
