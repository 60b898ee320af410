"Runs in words."
import pandas as pd
from conftest import runs_of

from coursekit.runs import config_diff, summarize


def test_the_verdict_counts():
    said = summarize(pd.concat([runs_of([0.6]), runs_of([0.4], "b")]), 1000)
    assert "Highest: a (60.0%); lowest: b (40.0%)" in said \
        and f"less than {196 * (2 * 0.25 / 1000) ** 0.5:.1f} points" in said and "one seed" in said
    assert "3 seeds" in summarize(runs_of([0.6, 0.7, 0.8]), 1000)


def test_changes_name_what_differs():
    assert config_diff({"a": 1, "c": 3}, {"a": 1, "b": 2}) == {"b": (2, None), "c": (None, 3)} \
        and config_diff({}, {}) == {}
