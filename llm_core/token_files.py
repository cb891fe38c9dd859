"""Any amount of text as two files of token ids, for training and held out, that are read from disk as they are needed.

A text is read in blocks and its ids are written as they come, so memory does not grow with it; the files are then
mapped into memory, and the system loads the pages that a batch asks for. Sources: a .txt or .md file, a folder of them,
a .jsonl file with a document a line under "text", or text files of a dataset on the Hugging Face hub.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from llm_core import hub
from llm_core.data import HELD_OUT, TokenText
from llm_core.programs import write_whole
from llm_core.tokenizer import Tokenizer

BLOCK = 2**20  # characters that are tokenized at a time
HELD_OUT_TOKENS = 200_000  # more than these tells no more, and takes its time at every evaluation
EVERY = round(1 / HELD_OUT)  # of a .jsonl file's documents, each of this number is held out
SUFFIXES = (".txt", ".md", ".jsonl")
HUB = "hf:"


def prepare(source: str, tokenizer: Tokenizer, folder: Path,
            progress: Callable[[int, int], None] = lambda done, total: None) -> TokenText:
    """The tokens of a source, from `folder` if they are there already, else made and kept there.

    The last 5 % of each file are held out, cut at the nearest line break; of a .jsonl file, every 20th document. Only
    the first HELD_OUT_TOKENS of these are kept. progress gets bytes read and bytes in all. FileNotFoundError or
    ValueError with one sentence if there is nothing to read, it is not UTF-8, or it is too short.
    """
    name, files = find(source)
    stats = [path.stat() for path in files]
    made_of = {"files": [[path.name, s.st_size, s.st_mtime_ns] for path, s in zip(files, stats)],
               "tokenizer": tokenizer.name, "vocab_size": tokenizer.vocab_size}
    facts, dtype = _read_facts(folder), np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    if facts is None or facts["made_of"] != made_of:
        facts = _write(files, sum(s.st_size for s in stats), tokenizer, folder, dtype, progress)
        if min(facts["train"], facts["held_out"]) < 2:
            _remove(folder)
            raise ValueError(f"{source} holds {facts['train'] + facts['held_out']} tokens, too few to learn from and "
                             "to hold 5 % out; give at least a page of text")
        write_whole(folder / "facts.json", json.dumps({**facts, "made_of": made_of}).encode())
    train, held_out = (np.memmap(folder / f"{part}.bin", dtype, "r", shape=(facts[part],))
                       for part in ("train", "held_out"))
    return TokenText(name, train, held_out, facts["held_out_bytes"])


def find(source: str) -> tuple[str, list[Path]]:
    """The name of a source and its files in a fixed order."""
    if source.startswith(HUB):
        return _from_the_hub(source.removeprefix(HUB))
    if not source.strip():
        raise FileNotFoundError("no file or folder was named")  # an empty path would mean the whole current folder
    path = Path(source)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        if not files:
            raise FileNotFoundError(f"the folder {path} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
        return path.resolve().name, files
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    return path.resolve().stem, [path]


def _from_the_hub(name: str) -> tuple[str, list[Path]]:
    """hf:OWNER/DATASET takes its text files, hf:OWNER/DATASET/FILE one of them."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    parts = name.split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise ValueError(f"a dataset on the hub is named {HUB}OWNER/NAME or {HUB}OWNER/NAME/FILE, not {HUB}{name}")
    wanted = [parts[2]] if len(parts) == 3 else [f"*{suffix}" for suffix in SUFFIXES]
    try:
        folder = hub.snapshot("/".join(parts[:2]), "dataset", wanted)
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as problem:
        raise FileNotFoundError(f"the dataset {name} could not be had from the Hugging Face hub "
                                f"({type(problem).__name__}); is there a network, and is the name right? A file or "
                                "folder of your own works without one") from None
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise FileNotFoundError(f"the dataset {name} has no {', '.join(SUFFIXES)} file here; one may be named: "
                                f"{HUB}OWNER/NAME/FILE")
    return parts[1], files


def _read_facts(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(files: list[Path], total: int, tokenizer: Tokenizer, folder: Path, dtype: np.dtype, progress) -> dict:
    """Both files of ids, whole or not at all; how many ids each has, and the bytes of text that are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "facts.json").unlink(missing_ok=True)
    parts = {part: folder / f"{part}.part" for part in ("train", "held_out")}
    try:
        facts = _encode(files, total, tokenizer, parts, dtype, progress)
    except BaseException:
        _remove(folder)
        raise
    for part, path in parts.items():
        os.replace(path, folder / f"{part}.bin")
    return facts


def _remove(folder: Path) -> None:
    """Take back what was begun, and the folder around it if there is nothing else in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def _encode(files: list[Path], total: int, tokenizer: Tokenizer, parts: dict[str, Path], dtype: np.dtype,
            progress) -> dict:
    counts, held_bytes, done = dict.fromkeys(parts, 0), 0, 0
    with parts["train"].open("wb") as train, parts["held_out"].open("wb") as held_out:
        out = {"train": train, "held_out": held_out}
        for part, text, starts, read in _pieces(files):
            ids = tokenizer.encode(text)
            if starts and counts[part] and tokenizer.end_of_text is not None:
                ids.insert(0, tokenizer.end_of_text)  # stands between documents
            if part == "held_out":
                ids = ids[:HELD_OUT_TOKENS - counts[part]]
                held_bytes += sum(len(tokenizer.token_bytes(id)) for id in ids if id != tokenizer.end_of_text)
            out[part].write(np.array(ids, dtype).tobytes())
            counts[part] += len(ids)
            done += read
            progress(done, total)
    return {**counts, "held_out_bytes": held_bytes}


def _pieces(files: list[Path]) -> Iterator[tuple[str, str, bool, int]]:
    """("train" or "held_out", a block of text, whether a document starts with it, bytes read) for all files."""
    for path in files:
        if path.suffix.lower() == ".jsonl":
            yield from _documents(path)
            continue
        size = path.stat().st_size
        cut = _cut(path, size)
        for part, start, end in (("train", 0, cut), ("held_out", cut, size)):
            starts = True
            for text, read in blocks(path, start, end):
                yield part, text, starts, read
                starts = False


def _documents(path: Path) -> Iterator[tuple[str, str, bool, int]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
                text.encode("utf-8")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ValueError(f'{path.name}: line {number + 1} is no JSON object with a text under "text"') from None
            yield "held_out" if number % EVERY == EVERY - 1 else "train", text, True, len(line)


def _cut(path: Path, size: int) -> int:
    """The byte where the held-out part of a file begins: behind the line break nearest to 95 %, or near there."""
    wanted, reach = round(size * (1 - HELD_OUT)), 2**16
    with path.open("rb") as file:
        start = max(0, wanted - reach)
        file.seek(start)
        around = file.read(2 * reach)
    breaks = [place for place in (around.rfind(b"\n", 0, wanted - start) + 1, around.find(b"\n", wanted - start) + 1)
              if place and start + place < size]
    if breaks:
        return start + min(breaks, key=lambda place: abs(start + place - wanted))
    place = wanted - start
    while 0 < place < len(around) and around[place] & 0xC0 == 0x80:  # not within a character
        place -= 1
    return start + place


def blocks(path: Path, start: int, end: int, size: int = BLOCK) -> Iterator[tuple[str, int]]:
    """The text of a file's bytes start .. end - 1 in blocks of about `size` characters, each with bytes read for it.

    A block ends before a run of spaces, where every tokenizer here begins a new word: so the ids are those of the whole
    text. Line ends become \\n, and the mark that Windows editors put first goes. ValueError where it is not UTF-8.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig" if not start else "utf-8")(), True)
    held, read = "", 0
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            raw = file.read(min(size, end - start))
            start += len(raw)
            try:
                held += decoder.decode(raw, final=start >= end or not raw)
            except UnicodeDecodeError as error:
                at = start - len(raw) - (len(error.object) - len(raw)) + error.start
                raise ValueError(f"{path.name} is not UTF-8: byte {at} is 0x{error.object[error.start]:02x}; "
                                 "open it in an editor and save it with the encoding UTF-8") from None
            read += len(raw)
            if not raw:
                break
            cut = _last_run_of_spaces(held) or (len(held) if len(held) > 16 * size else 0)  # a text without spaces
            if cut and start < end:
                yield held[:cut], read
                held, read = held[cut:], 0
    if held:
        yield held, read


def _last_run_of_spaces(text: str) -> int:
    """Where the last run of spaces begins that has a character before and behind it; 0 if there is none."""
    place = len(text.rstrip())
    while place > 1:
        place -= 1
        if text[place].isspace() and not text[place - 1].isspace():
            return place
    return 0
