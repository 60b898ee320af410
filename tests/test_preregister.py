"Claims: what stands before the first result decides, and what was changed after it shows."
import json

import pytest

from coursekit.files import CourseError
from coursekit.preregister import Claim, claims_table, judge, state_claim


def state(ws, threshold=10, name="speed", **terms):
    "A claim with a test of ten cases."
    return state_claim(ws, name, "It is faster.", "pictures a second", threshold, **{"n": 10, **terms})


@pytest.mark.parametrize("side, low, high, verdict", [
    ("at least", 10, 12, "supported"), ("at least", 9, 9.9, "refuted"), ("at least", 9, 10, "undecided"),
    ("at most", 8, 10, "supported"), ("at most", 10.1, 12, "refuted"), ("at most", 10, 12, "undecided"),
    ("at least", 10, 10, "supported"), ("at most", 10, 10, "supported"), ("at least", -12, -11, "refuted"),
    ("at most", -12, -11, "supported")])
def test_a_verdict_is_where_the_interval_lies(side, low, high, verdict):
    assert Claim("a", "b", "c", 10., 5, side, "own").verdict(low, high) == verdict


def test_the_same_terms_are_the_same_claim_and_the_same_result_is_one_look(ws):
    first = state(ws)
    assert state(ws) == first and first.decided
    for _ in range(3):
        assert judge(ws, state(ws), 12, 11, 13, 10) == "supported"
    row = claims_table(ws).iloc[0]
    assert (row.verdict, row.looks, row.note, row["holds if"]) == ("supported", 1, "", "at least 10")
    judge(ws, first, 12.5, 11, 13, 10)
    assert claims_table(ws).looks.tolist() == [2] and claims_table(ws).value.tolist() == [12.5]


def test_a_threshold_that_is_moved_after_the_result_shows_and_does_not_count(ws):
    judge(ws, state(ws), 9, 8, 9.5, 10)
    moved = state(ws, 5)
    assert judge(ws, moved, 9, 8, 9.5, 10) == "refuted"
    row = claims_table(ws).iloc[0]
    assert row.verdict == "refuted" and row["holds if"] == "at least 10" and row.looks == 2
    assert row.note == "changed after the result: threshold from 10.0 to 5.0"
    state(ws)  # back to where it was: nothing is left to say but the looks
    assert claims_table(ws).note.tolist() == [""]


@pytest.mark.parametrize("change, said", [({"n": 20}, "n from 10 to 20"), ({"side": "at most"}, "side from 'at least'"),
                                          ({"source": "section 2"}, "source from 'own' to 'section 2'")])
def test_every_term_counts(ws, change, said):
    first = state(ws)
    judge(ws, first, 12, 11, 13, 10)
    assert state(ws, **change).fingerprint != first.fingerprint
    assert said in claims_table(ws).note[0]


def test_before_a_result_a_claim_may_change(ws):
    old = state(ws, 20)
    new = state(ws, 10)
    with pytest.raises(CourseError, match="is not the one written down"):
        judge(ws, old, 12, 11, 13, 10)
    assert judge(ws, new, 12, 11, 13, 8) == "supported"
    row = claims_table(ws).iloc[0]
    assert row.note == "8 cases where 10 were planned" and row.decided == new.decided.replace("T", " ")


def test_claims_without_a_result_are_open_and_no_file_is_an_empty_table(ws):
    assert len(claims_table(ws)) == 0 and "note" in claims_table(ws)
    state(ws), state(ws, name="size")
    table = claims_table(ws)
    assert table.claim.tolist() == ["speed", "size"] and set(table.verdict) == {"open"} and table.looks.sum() == 0


def test_an_edited_line_and_a_missing_one_are_noticed(ws):
    judge(ws, state(ws), 9, 8, 9.5, 10)
    state(ws, name="size")
    path = ws.runs / "claims.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace("10.0", "5.0"), *lines[1:]]) + "\n")
    assert claims_table(ws).note.str.endswith("the file was edited before its line 2").all()
    path.write_text("\n".join([lines[0], lines[2]]) + "\n")
    assert claims_table(ws).note.str.endswith("the file was edited before its line 2").all()
    path.write_text("\n".join(lines) + "\n")
    assert not claims_table(ws).note.any()


@pytest.mark.parametrize("text", ["no json", "[1]", json.dumps({"judged": "speed"})])
def test_a_broken_file_is_a_sentence(ws, text):
    state(ws)
    with open(ws.runs / "claims.jsonl", "a") as out:
        out.write(text + "\n")
    with pytest.raises(CourseError, match="Line 2 of .* is no claim and no verdict"):
        claims_table(ws)


@pytest.mark.parametrize("wrong", [{"side": "above"}, {"n": 0}])
def test_a_claim_without_a_test_is_refused(ws, wrong):
    with pytest.raises(CourseError, match="wants a statement, a test, at least one case"):
        state(ws, **wrong)
    for statement, test in ("", "a test"), ("It is so.", " "):
        with pytest.raises(CourseError, match="wants a statement"):
            state_claim(ws, "a", statement, test, 1, 10)
    assert not (ws.runs / "claims.jsonl").exists()


@pytest.mark.parametrize("value, low, high", [(5, 6, 7), (8, 6, 7), (float("nan"), 6, 7), (6, 7, 6)])
def test_an_interval_holds_its_value(ws, value, low, high):
    with pytest.raises(CourseError, match="low <= value <= high is expected"):
        judge(ws, state(ws), value, low, high, 10)
