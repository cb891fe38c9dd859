"""Which row reads and guesses what: against the table in mtp.py, and against what really moves in a model."""

import pytest
import torch

from llm_core.mtp_alignment import aligned_rows, likeliest
from tests.test_mtp import build
from tests.tiny_configs import some_ids


def test_the_paper_by_hand():
    words = "the cat sat on".split()
    said = [(r.depth, r.hidden_of, words[r.reads], words[r.target]) for r in aligned_rows(4, 2)]
    assert said == [(0, None, "the", "cat"), (0, None, "cat", "sat"), (0, None, "sat", "on"),
                    (1, 0, "cat", "sat"), (1, 0, "sat", "on"), (2, 1, "sat", "on")]


def test_a_row_knows_what_the_table_says():
    """Change one token: the rows that have read it move, and no others."""
    model, ids = build("DeepSeek-V3", 2), some_ids(1, 12)
    other = ids.clone()
    other[0, 6] = (other[0, 6] + 1) % 61
    with torch.no_grad():
        before, after = ([out.logits[0], *(a.logits[0] for a in model.predict_ahead(out.hidden, x))]
                         for x in (ids, other) for out in [model(x)])
    for r in aligned_rows(13, 2):
        moved = (before[r.depth][r.row] - after[r.depth][r.row]).abs().max().item() > 1e-5
        assert moved == (r.reads >= 6), r


def test_likeliest_is_what_each_depth_says():
    model, ids = build("GQA", 2), some_ids(1, 9)[0]
    got = likeliest(model, ids.tolist())
    assert [len(row) for row in got] == [8, 7, 6] == [sum(r.depth == k for r in aligned_rows(9, 2)) for k in range(3)]
    with torch.no_grad():
        out = model(ids[None, :-1])
        assert got[0] == out.logits[0].argmax(-1).tolist()
        assert got[2] == model.predict_ahead(out.hidden, ids[None, :-1])[1].logits[0].argmax(-1).tolist()
    assert [len(row) for row in likeliest(model, [1, 2])] == [1]  # no row for any module


def test_too_short_a_text_is_said():
    with pytest.raises(ValueError, match="depth 2 needs a text of at least 4 tokens, to read 3 and guess one, and "
                                         "there are 3"):
        aligned_rows(3, 2)
    assert len(aligned_rows(4, 2)) == 6
