"""GGUF, the one-file format of llama.cpp: a header of named values (sizes, vocabulary), then the tensors.

A file holds all that a model needs. Its numbers are often stored in a few bits each, and come out in 32. The file is
read with the `gguf` package. Of the many architectures only Llama's is known here, which is SmolLM2's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from llm_core.checkpoint.sizes import check_size
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, ModelConfig, RopeConfig
from llm_core.model import LanguageModel
from llm_core.tokenizer import SMOLLM_PATTERN, Tokenizer, bytes_by_letter
from llm_core.validation import instance_of, plain, shown

TOKENS = "tokenizer.ggml.tokens"
NAMES = {"token_embd": "token_embedding", "output_norm": "final_norm", "output": "output_head"}
NAMES_IN_A_BLOCK = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.q_proj",
    "attn_k": "attention.k_proj",
    "attn_v": "attention.v_proj",
    "attn_output": "attention.o_proj",
    "ffn_norm": "feed_forward_norm",
    "ffn_gate": "feed_forward.gate",
    "ffn_up": "feed_forward.up",
    "ffn_down": "feed_forward.down",
}
PATTERNS = {"smollm": SMOLLM_PATTERN}  # the file's name for how a text is cut into words
MOST_VALUES = 400_000  # in a header, up to 200 MB of memory; SmolLM2's has 247,312
ORDINARY = 1  # the type of a token that text becomes; others are special


def load_gguf(path: Path) -> tuple[LanguageModel, Tokenizer]:
    """The model in 32 bits, ready to generate, and its tokenizer.

    FileNotFoundError or ValueError, naming file, tensor and expectation, if it is missing, damaged or of another kind.
    """
    path = Path(path)
    reader = _open(path)
    header = _Header(reader, path.name)
    config = _config(header, tied="output.weight" not in {tensor.name for tensor in reader.tensors})
    check_size(config, [tensor.shape.tolist() for tensor in reader.tensors], path.name)
    model = LanguageModel.unfilled(config)
    model.load_state_dict(_weights(reader, config, model.state_dict(), path.name), assign=True)
    return model.eval(), _tokenizer(header)


class _Reader(gguf.GGUFReader):
    """The package's reader, on a plain view of the mapped file: NumPy's own class for it triples the time.

    The package takes a file's word for how much of everything follows, and reads on, past the file's end, where it
    finds nothing, for as long as the file says. Here that is an error, and so are more values than any header has,
    each of which becomes an array of its own.
    """

    values = 0

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, mapped: np.memmap) -> None:
        self._data = np.asarray(mapped)

    def _get(self, offset, dtype, count=1, override_order=None):
        self.values += 1
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if not 0 <= offset <= end <= len(self.data):
            raise ValueError("it goes past the end of the file")
        if self.values > MOST_VALUES:
            raise ValueError("there are too many values")
        return super()._get(offset, dtype, count, override_order)


def _open(path: Path) -> gguf.GGUFReader:
    if not path.is_file():
        raise FileNotFoundError(f"the model file {path.name} is missing")
    try:
        with np.errstate(over="ignore"):  # a tensor's place that goes round past 2^64 is refused in _weights
            return _Reader(path)
    except Exception as error:  # the reader trusts the file, so one that is cut off fails anywhere in it
        why = f"{type(error).__name__}: {plain(str(error))}"
        raise ValueError(f"{path.name} is no GGUF file, or is damaged or cut off ({why})") from None


class _Header:
    """The named values of a file's header. ValueError naming file and key for one that is missing."""

    def __init__(self, reader: gguf.GGUFReader, name: str):
        self._fields, self.name = reader.fields, name

    def get(self, key: str, kind: type) -> Any:
        """The value of a key, which must be of that kind."""
        if key not in self._fields:
            raise ValueError(f"{self.name} lacks the key {key!r}, which a model of this kind needs")
        try:
            value = self._fields[key].contents()
        except ValueError:
            raise ValueError(f"{self.name}: the text of {key} is not in UTF-8") from None
        instance_of(f"{self.name}: {key}", value, (kind,))
        return value

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value = self.get(key, str)
        if value not in known:
            raise ValueError(f"{self.name}: {key} is {shown(value)}, and only {', '.join(known)} can be read here")
        return value


def _config(header: _Header, tied: bool) -> ModelConfig:
    header.one_of("general.architecture", ("llama",))

    def real(key: str) -> float:  # stored in 32 bits: 9.99999975e-06 was written as 1e-05
        return float(f"{header.get(key, float):.6g}")

    def size(key: str) -> int:
        return header.get(f"llama.{key}", int)

    return ModelConfig(
        vocab_size=len(header.get(TOKENS, list)), max_seq_len=size("context_length"),
        d_model=size("embedding_length"), n_layers=size("block_count"),
        attention=GroupedAttentionConfig(size("attention.head_count"), size("attention.head_count_kv")),
        feed_forward=FeedForwardConfig(size("feed_forward_length"), "swiglu"),
        rope=RopeConfig(real("llama.rope.freq_base"), layout="halves"),
        norm_eps=real("llama.attention.layer_norm_rms_epsilon"), tie_embeddings=tied)


def _weights(reader: gguf.GGUFReader, config: ModelConfig, wanted: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    """Our name -> tensor in 32 bits, each one checked against the model's; they are read one after another."""
    weights, taken = {}, reader.data_offset
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        name, shape = _our_name(tensor.name), [int(n) for n in reversed(tensor.shape)]  # the file counts from the right
        if name not in wanted:
            raise ValueError(f"{file} holds {plain(tensor.name)}, for which this model has no place")
        if shape != list(wanted[name].shape):
            raise ValueError(f"{file}: {tensor.name} has shape {plain(str(shape))}, the model needs "
                             f"{list(wanted[name].shape)}")
        if tensor.data_offset < taken:
            raise ValueError(f"{file}: {tensor.name} lies where the header or another tensor does")
        taken = tensor.data_offset + tensor.n_bytes
        try:
            numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError):
            raise ValueError(f"{file}: {tensor.name} is stored as {tensor.tensor_type.name}, which cannot be "
                             "turned back into numbers here") from None
        weights[name] = torch.tensor(numbers, dtype=torch.float32).view(shape)
        if ".q_proj" in name or ".k_proj" in name:
            weights[name] = rows_in_halves(weights[name], config.head_dim)
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        raise ValueError(f"{file} lacks {len(missing)} of {len(wanted)} tensors, first the one for {missing[0]}")
    return weights


def rows_in_halves(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key matrix [heads * head_dim, D] from interleaved RoPE pairs to halves.

    llama.cpp keeps the two rows of a pair side by side (0, 1), (2, 3) …; Llama as it was published, and our preset,
    keep them half a head apart. Read as the other, every word would still be there and no position right.
    """
    heads = weight.view(-1, head_dim // 2, 2, weight.shape[-1])  # [heads, pair, which of the two, D]
    return heads.transpose(1, 2).reshape(weight.shape)


def _our_name(theirs: str) -> str:
    """"blk.3.attn_q.weight" -> "blocks.3.attention.q_proj.weight"; an unknown name stays as it is."""
    stem, _, kind = theirs.rpartition(".")
    if stem.startswith("blk."):
        _, block, part = stem.split(".", 2)
        return f"blocks.{block}.{NAMES_IN_A_BLOCK.get(part, part)}.{kind}"
    return f"{NAMES.get(stem, stem)}.{kind}"


def _tokenizer(header: _Header) -> Tokenizer:
    """The vocabulary in the header. A token that is made by a merge has an id in the order of the merges."""
    header.one_of("tokenizer.ggml.model", ("gpt2",))
    pattern = PATTERNS[header.one_of("tokenizer.ggml.pre", tuple(PATTERNS))]
    byte_of = bytes_by_letter()
    ranks, special = {}, {}
    tokens, kinds = header.get(TOKENS, list), header.get("tokenizer.ggml.token_type", list)
    if len(set(tokens)) < len(tokens) or len(tokens) != len(kinds) or not all(isinstance(t, str) for t in tokens):
        raise ValueError(f"{header.name}: the vocabulary's {len(tokens):,} tokens must be texts that differ, each with "
                         f"a type, and there are {len(kinds):,} types")
    for id, (token, kind) in enumerate(zip(tokens, kinds)):
        if kind != ORDINARY:
            special[token] = id
        elif unknown := [letter for letter in token if letter not in byte_of]:
            raise ValueError(f"{header.name}: token {id} of the vocabulary has the letter {unknown[0]!r}, which stands "
                             "for no byte")
        else:
            ranks[bytes(byte_of[letter] for letter in token)] = id
    end = header.get("tokenizer.ggml.eos_token_id", int)
    if not 0 <= end < len(tokens):
        raise ValueError(f"{header.name}: the token that ends a text is {end}, and there are {len(tokens):,} tokens")
    return Tokenizer(Path(header.name).stem, ranks, end, pattern=pattern, special=special)
