"""GGUF files that lie about their counts, lengths, kinds and places: a model or a sentence, soon and in little memory.

The package that reads them believes what a file says, so what is tried here is our own check of it.
"""

import struct
import tempfile
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core.model import LanguageModel
from tests.hostile_folders import CARELESS, broken, opens_or_says
from tests.small_folders import wide
from tests.test_checkpoint import HEADER, TINY, write

with tempfile.TemporaryDirectory() as place:
    MODEL: LanguageModel = wide(TINY)
    GOOD = write(Path(place) / "tiny.gguf", MODEL).read_bytes()
U8, U32, F32, TEXT, LIST, U64 = 0, 4, 6, 8, 9, 10  # the format's numbers of kinds


def text(letters: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(letters) if length is None else length) + letters


def start(tensors: int = 0, keys: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def key(kind: int, value: bytes, name: bytes = b"a") -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return key(LIST, struct.pack("<IQ", kind, count) + values)


def tensor(sides: tuple[int, ...], kind: int = 0, place: int = 0, name: bytes = b"t", said: int | None = None) -> bytes:
    return text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides) if said is None else said, *sides, kind, place)


FAULTS = {
    "keys without end": start(keys=2**63), "tensors without end": start(tensors=2**63, keys=0),
    "another version": start(version=2**31), "a text of 2^60 bytes": start() + key(TEXT, text(b"abc", 2**60)),
    "a text of 2^64 - 1": start() + key(TEXT, text(b"abc", 2**64 - 1)), "a name of 2^60": start() + text(b"a", 2**60),
    "a list of 2^60": start() + array(U8, 2**60, b"abc"),
    "a list of 2^64 - 1": start() + array(U64, 2**64 - 1, b"a" * 64),
    "a list of texts that is not there": start() + array(TEXT, 2**40),
    "a list of lists of lists": start() + key(LIST, struct.pack("<IQ", LIST, 1) * 5000),
    "a list of empty lists": start() + array(LIST, 2**60, struct.pack("<IQ", LIST, 0) * 9),
    "an unknown kind": start() + key(77, b""), "a key twice": start(keys=2) + key(U8, b"1") * 2,
    "a name that is no text": start() + key(U8, b"1", b"\xff\xfe"), "no alignment": start() + key(
        U32, struct.pack("<I", 0), b"general.alignment"),
    "an odd alignment": start() + key(U32, struct.pack("<I", 7), b"general.alignment"),
    "sides beyond 2^64": start(1, 0) + tensor((2**32, 2**32, 2)), "sides that begin again": start(1, 0) + tensor(
        (2**62 + 1, 4)), "2^32 sides": start(1, 0) + tensor((1,), said=2**32 - 1),
    "a place past the end": start(1, 0) + tensor((4,), place=2**40), "a place that begins again": start(1, 0) + tensor(
        (4,), place=2**64 - 64), "a tensor twice": start(2, 0) + tensor((0,)) * 2,
    "a tensor of an unknown kind": start(1, 0) + tensor((4,), kind=999),
    "a tensor with a name that is no text": start(1, 0) + tensor((0,), name=b"\xff"),
    "nothing in it": start(0, 0)}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("behind", [b"", b"\0" * 4096])
def test_a_file_by_hand_is_a_sentence(tmp_path, fault, behind):
    (tmp_path / "sent.gguf").write_bytes(FAULTS[fault] + behind)
    assert opens_or_says(tmp_path / "sent.gguf") is None


@pytest.mark.parametrize("header", [
    {"llama.block_count": 2**32 - 1}, {"llama.block_count": 50_000}, {"llama.embedding_length": 2**31},
    {"llama.context_length": 0}, {"llama.attention.head_count": 0}, {"llama.attention.head_count_kv": 3},
    {"llama.block_count": "2"}, {"llama.block_count": [2, 2]}, {"llama.block_count": 2.0},
    {"llama.rope.freq_base": "5e4"}, {"llama.rope.freq_base": [1.0]}, {"llama.rope.freq_base": float("nan")},
    {"llama.attention.layer_norm_rms_epsilon": float("inf")}, {"tokenizer.ggml.tokens": 260},
    {"tokenizer.ggml.tokens": list(range(260))}, {"tokenizer.ggml.tokens": ["a"] * 260},
    {"tokenizer.ggml.token_type": [1]}, {"tokenizer.ggml.token_type": "1"},
    {"tokenizer.ggml.eos_token_id": 260}, {"tokenizer.ggml.eos_token_id": "0"}, {"tokenizer.ggml.eos_token_id": [0]},
    {"tokenizer.ggml.model": "a" * 100_000}, {"tokenizer.ggml.pre": ["smollm"]}, {"general.architecture": "\x1b[2J"}],
    ids=lambda header: "-".join(header))
def test_a_header_of_the_wrong_kinds_is_a_sentence(tmp_path, header):
    write(tmp_path / "sent.gguf", MODEL, header={**HEADER, **header})
    assert opens_or_says(tmp_path / "sent.gguf") is None


def test_tensors_of_another_place_and_kind(tmp_path):
    """Before all others, past the end of the file, and where another tensor lies."""
    path = tmp_path / "sent.gguf"
    name = b"output_norm.weight"
    at = GOOD.index(name) + len(name) + 4 + 8 + 4  # behind its sides and its kind
    for place in (2**64 - 256, 2**63, 2**40, 1):
        path.write_bytes(GOOD[:at] + struct.pack("<Q", place) + GOOD[at + 8:])
        assert opens_or_says(path) is None
    for kind in gguf.GGMLQuantizationType:
        path.write_bytes(GOOD[:at - 4] + struct.pack("<I", kind) + GOOD[at:])
        opens_or_says(path)


def tried(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sent" / "tiny.gguf"
        path.parent.mkdir()
        path.write_bytes(files["tiny.gguf"])
        opens_or_says(path)


BROKEN = broken({"tiny.gguf": GOOD}, ("tiny.gguf",))


def test_the_good_one_is_read():
    tried({"tiny.gguf": GOOD})


@settings(max_examples=200, **CARELESS)
@given(BROKEN)
def test_any_broken_file_is_a_model_or_a_sentence(files):
    tried(files)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=10_000, **CARELESS)
@given(BROKEN | st.binary(max_size=200).map(lambda rest: {"tiny.gguf": start(1, 2) + rest}))
def test_any_broken_file_is_a_model_or_a_sentence_for_long(files):
    tried(files)
