"What 01_data itself exports: a split by numbers of images. (Its machinery is in quality, curves, stats and widgets.)"
import math

import pytest

from coursekit import data
from coursekit.data import suggest_split
from coursekit.files import CourseError


def test_the_split_gives_the_interval_that_it_promises():
    for n in 20_000, 60_000, 100_000, 300_000, 1_000_000, 10_000_000:
        s = suggest_split(n)
        assert s["n_train"] + s["n_valid"] + s["n_test"] == n
        assert s["half_width"] == pytest.approx(1.96 * math.sqrt(s["error"] * (1 - s["error"]) / s["n_test"]))
        assert s["half_width"] <= min(0.01, 0.13 * s["error"]) * 1.001 or s["n_test"] in (20_000, n // 5)
    assert suggest_split(10_000)["split"] == "64/16/20" and suggest_split(1_000_000)["split"] == "96/2/2"


def test_a_large_error_does_not_make_a_small_test_set():
    wrong, right = suggest_split(60_000, error=0.4), suggest_split(60_000, error=0.05)
    assert wrong["n_test"] > 9_000 and wrong["half_width"] <= 0.01
    assert right["half_width"] <= 0.13 * 0.05 < 0.01


def test_both_limits_hold_and_are_said():
    few, many = suggest_split(1000, error=0.05), suggest_split(10**8)
    assert few["n_test"] == 200 and few["n_valid"] == 160 and "20% of them, no more" in few["why"]
    assert many["n_test"] == many["n_valid"] == 20_000 and "the cap" in many["why"]
    enough = suggest_split(100_000)["why"]
    assert "no more" not in enough and "cap" not in enough and "6,961 test images" in enough
    assert suggest_split(10**8, cap=500)["n_test"] == 500 and suggest_split(1000, most=0.1)["n_test"] == 100


@pytest.mark.parametrize("args, says", [((3,), "number of examples is 3"), (("100",), "number of examples is '100'"),
                                        ((1000, None, 0), "half_width is 0"), ((1000, None, 0.1, 2), "most is 2"),
                                        ((1000, None, 0.1, 0.2, 0), "cap is 0"),
                                        ((1000, 0), "The error is 0"), ((1000, 1.5), "a rate between 0 and 1")])
def test_a_split_of_nonsense_is_a_sentence(args, says):
    with pytest.raises(CourseError, match=says):
        suggest_split(*args)


def test_what_students_import_from_the_lesson_is_there():
    assert not [name for name in data.__all__ if not hasattr(data, name)]
    assert {"near_duplicates", "audit", "learning_curve", "images_to_tell", "accept_threshold"} <= set(data.__all__)
