"""The promise of `core/deltas.py`: nothing is lost, the numbers have no gaps, and the pace is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.deltas import Coalescer, Piece

KINDS = st.sampled_from(["text", "thinking"])
# Steps of a binary fraction: sums of them are exact, so that the interval can be compared without a margin.
STEPS = st.integers(0, 64).map(lambda n: n / 64)
FED = st.lists(st.tuples(KINDS, st.text(min_size=1, max_size=5), STEPS), max_size=40)
INTERVALS = st.sampled_from([0.0, 1 / 64, 0.25, 1.0, 10.0])


def run(fed, interval_s, *, obey_due=False):
    """Return [(when, piece)] of feeding all and flushing at the end."""
    coalescer, now, out = Coalescer(interval_s), 0.0, []
    for kind, text, step in fed:
        until = now + step
        while obey_due and coalescer.due_at is not None and coalescer.due_at <= until:
            now = max(now, coalescer.due_at)
            out += [(now, piece) for piece in coalescer.flush(now)]
        now = until
        out += [(now, piece) for piece in coalescer.feed(kind, text, now)]
    return out + [(now, piece) for piece in coalescer.flush(now)]


@given(FED, INTERVALS, st.booleans())
def test_the_joined_deltas_are_the_input_kind_by_kind(fed, interval_s, obey_due):
    out = run(fed, interval_s, obey_due=obey_due)
    for wanted in ("text", "thinking"):
        assert "".join(text for kind, text, _ in fed if kind == wanted) == "".join(
            piece.text for _, piece in out if piece.kind == wanted
        )
    # And in their order, because a reader may show both in one place.
    assert "".join(text for _, text, _ in fed) == "".join(piece.text for _, piece in out)


@given(FED, INTERVALS, st.booleans())
def test_the_numbers_have_no_gaps_and_no_delta_is_empty(fed, interval_s, obey_due):
    pieces = [piece for _, piece in run(fed, interval_s, obey_due=obey_due)]
    assert [piece.seq for piece in pieces] == list(range(len(pieces)))
    assert all(piece.text for piece in pieces)


@given(FED, INTERVALS)
def test_two_deltas_are_at_least_the_interval_apart_unless_the_kind_changes_or_the_answer_ends(
    fed, interval_s
):
    out = run(fed, interval_s, obey_due=True)
    for (earlier, _), (later, piece), (_, following) in zip(out, out[1:], out[2:], strict=False):
        assert later - earlier >= interval_s or following.kind != piece.kind


@given(FED, INTERVALS)
def test_no_text_is_held_longer_than_the_interval_by_one_who_obeys_due_at(fed, interval_s):
    coalescer, now, fed_at = Coalescer(interval_s), 0.0, None
    for kind, text, step in fed:
        now += step
        due = coalescer.due_at
        if due is not None and due <= now:
            assert due - fed_at <= interval_s
            coalescer.flush(due)
        coalescer.feed(kind, text, now)
        fed_at = now if coalescer.due_at is not None else None


@given(FED)
def test_an_interval_of_zero_lets_every_token_pass_by_itself(fed):
    assert [piece.text for _, piece in run(fed, 0.0)] == [text for _, text, _ in fed]


def test_the_first_piece_passes_at_once_and_the_next_wait_together():
    coalescer = Coalescer(0.05)
    assert coalescer.due_at is None
    assert coalescer.feed("text", "One", 7.0) == [Piece(0, "text", "One")]
    assert coalescer.feed("text", " day", 7.01) == []
    assert coalescer.due_at == pytest.approx(7.05)
    assert coalescer.feed("text", " a", 7.04) == []
    assert coalescer.feed("text", " bot", 7.06) == [Piece(1, "text", " day a bot")]
    assert coalescer.due_at is None
    assert coalescer.flush(9.0) == []


def test_a_change_of_the_kind_ends_a_delta():
    coalescer = Coalescer(10.0)
    coalescer.feed("thinking", "Hm", 0.0)
    assert coalescer.feed("thinking", ".", 1.0) == []
    assert coalescer.feed("text", "Yes", 2.0) == [Piece(1, "thinking", ".")]
    assert coalescer.flush(2.0) == [Piece(2, "text", "Yes")]
