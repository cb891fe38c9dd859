"""Text on disk: the same ids as in memory, whatever the blocks; memory that does not grow; mistakes that are named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import data, token_files, tokenizer

COURSE = tokenizer.get("course")
LINES = "".join(f"Line {i}\n" for i in range(100))


def ids_of(text):
    return text.train.tolist(), text.held_out.tolist()


def test_a_folder_gives_the_tokens_of_its_files_in_order(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.MD").write_text(LINES, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.txt").write_text("")
    text = token_files.prepare(str(tmp_path), COURSE, tmp_path / "tokens")
    train, held_out = ids_of(text)
    assert text.name == tmp_path.name and text.train.dtype == np.uint16
    assert COURSE.decode(train).split("<|endoftext|>") == [LINES[:LINES.index("Line 95")]] * 2
    assert COURSE.decode(held_out).split("<|endoftext|>") == [LINES[LINES.index("Line 95"):]] * 2
    assert text.held_out_bytes == 2 * len(LINES[LINES.index("Line 95"):])


def test_a_play_has_the_same_ids_on_disk_as_in_memory(tmp_path):
    play = data.shakespeare().train[0]
    (tmp_path / "play.txt").write_text(play, encoding="utf-8")
    text = token_files.prepare(str(tmp_path / "play.txt"), COURSE, tmp_path / "tokens")
    train, held_out = ids_of(text)
    assert train + held_out == COURSE.encode(play) and text.name == "play"
    assert 0.045 < len(held_out) / len(train + held_out) < 0.055
    assert text.held_out_bytes == len(COURSE.decode(held_out).encode())


@settings(max_examples=150, deadline=None)
@given(text=st.text("ab \n\té1'日\r", min_size=1, max_size=120), size=st.integers(1, 40), start=st.booleans())
def test_blocks_change_no_id_and_lose_nothing(tmp_path_factory, text, size, start):
    path = tmp_path_factory.mktemp("t") / "x.txt"
    raw = (b"\xef\xbb\xbf" if start else b"") + text.encode()
    path.write_bytes(raw)
    pieces = list(token_files.blocks(path, 0, len(raw), size))
    whole = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(piece for piece, _ in pieces) == whole
    assert sum(read for _, read in pieces) == len(raw) or not whole
    if all(len(piece) < 16 * size for piece, _ in pieces):  # else a text without spaces was cut by force
        assert [id for piece, _ in pieces for id in COURSE.encode(piece)] == COURSE.encode(whole)


def test_jsonl_is_a_document_a_line_and_each_twentieth_is_held_out(tmp_path):
    documents = [f"Document {i}: naïve\n" for i in range(45)]
    lines = [json.dumps({"text": text, "id": i}) for i, text in enumerate(documents)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    text = token_files.prepare(str(tmp_path / "d.jsonl"), COURSE, tmp_path / "tokens")
    train, held_out = ids_of(text)
    assert COURSE.decode(held_out).split("<|endoftext|>") == [documents[19], documents[39]]
    assert COURSE.decode(train).split("<|endoftext|>") == [d for i, d in enumerate(documents) if i not in (19, 39)]


def test_tokens_are_made_once_and_again_when_the_text_changed(tmp_path, monkeypatch):
    file, folder = tmp_path / "t.txt", tmp_path / "tokens"
    file.write_text(LINES)
    seen = []
    first = ids_of(token_files.prepare(str(file), COURSE, folder, lambda done, total: seen.append((done, total))))
    assert seen[-1] == (len(LINES), len(LINES))
    with monkeypatch.context() as patch:
        patch.setattr(token_files, "_write", lambda *a: pytest.fail("they were there"))
        assert ids_of(token_files.prepare(str(file), COURSE, folder)) == first
    file.write_text(LINES + "More\n")
    assert ids_of(token_files.prepare(str(file), COURSE, folder)) != first
    assert sorted(path.name for path in folder.iterdir()) == ["facts.json", "held_out.bin", "train.bin"]


def test_batches_from_disk_are_those_from_memory(tmp_path):
    (tmp_path / "t.txt").write_text(LINES)
    text = token_files.prepare(str(tmp_path / "t.txt"), COURSE, tmp_path / "tokens")
    in_memory = torch.tensor(text.train.tolist())
    for step in range(3):
        for a, b in zip(data.batch_at(text.train, step, 4, 16, seed=1), data.batch_at(in_memory, step, 4, 16, seed=1)):
            assert a.dtype == torch.int64 and torch.equal(a, b)
    held = torch.tensor(text.held_out.tolist())
    for a, b in zip(data.windows(text.held_out, 8), data.windows(held, 8)):
        assert torch.equal(a, b)


def test_held_out_text_is_capped(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "HELD_OUT_TOKENS", 10)
    (tmp_path / "t.txt").write_text(LINES * 20)
    text = token_files.prepare(str(tmp_path / "t.txt"), COURSE, tmp_path / "tokens")
    assert len(text.held_out) == 10 and text.held_out_bytes == len(COURSE.decode(text.held_out.tolist()).encode())


def test_bad_texts_get_a_sentence(tmp_path):
    def says(match, source, kind=ValueError):
        with pytest.raises(kind, match=match):
            token_files.prepare(str(source), COURSE, tmp_path / "tokens")

    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait" * 100)
    says(r"latin\.txt is not UTF-8: byte 3 is 0xe9; .*save it", tmp_path / "latin.txt")
    late = b"fine line\n" * 300_000
    (tmp_path / "late.txt").write_bytes(late[:2_500_000] + b"\xff" + late[2_500_000:])
    says("late.txt is not UTF-8: byte 2500000 is 0xff", tmp_path / "late.txt")
    for content in ("", " \n", "x"):
        (tmp_path / "few.txt").write_text(content)
        says("too few to learn from", tmp_path / "few.txt")
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    says('d.jsonl: line 2 is no JSON object with a text under "text"', tmp_path / "d.jsonl")
    (tmp_path / "e.jsonl").write_text("[" * 100_000)
    says("e.jsonl: line 1 is no JSON object", tmp_path / "e.jsonl")
    says("there is no file or folder", tmp_path / "none.txt", FileNotFoundError)
    says("no file or folder was named", "", FileNotFoundError)
    (tmp_path / "folder").mkdir()
    says(r"has no \.txt, \.md or \.jsonl file", tmp_path / "folder", FileNotFoundError)
    says("is named hf:OWNER/NAME or hf:OWNER/NAME/FILE, not hf:tiny", "hf:tiny")


def test_a_dataset_of_the_hub(tmp_path, monkeypatch):
    """The hub itself is not asked: its client returns a folder of files, or says that there is no network."""
    import huggingface_hub

    asked = {}

    def snapshot(name, **options):
        asked.update(name=name, **options)
        return str(tmp_path)

    (tmp_path / "TinyStories-train.txt").write_text(LINES)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    text = token_files.prepare("hf:roneneldan/TinyStories/TinyStories-train.txt", COURSE, tmp_path / "tokens")
    assert text.name == "TinyStories" and len(text.train) > 100
    assert asked == {"name": "roneneldan/TinyStories", "repo_type": "dataset",
                     "allow_patterns": ["TinyStories-train.txt"], "ignore_patterns": None,
                     "local_files_only": True}  # the tests are offline
    token_files.prepare("hf:roneneldan/TinyStories", COURSE, tmp_path / "tokens")
    assert asked["allow_patterns"] == ["*.txt", "*.md", "*.jsonl"]

    def offline(name, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match="could not be had from the Hugging Face hub .* is there a network"):
        token_files.prepare("hf:roneneldan/TinyStories", COURSE, tmp_path / "tokens")


def memory(megabytes: int, folder: Path) -> list[int]:
    """Bytes of a process that makes the tokens of so much text, at its peak; and of its own after reading batches of
    them. (Pages of the mapped file, which the system keeps as long as it has room, are not the process's own.)"""
    code = f"""if True:
        from pathlib import Path
        from llm_core import data, token_files, tokenizer
        line = "It was the best of times, it was the worst of times, line {{}}.\\n"
        with open({str(folder / "big.txt")!r}, "w") as file:
            for n in range({megabytes * 10**6} // 61):
                file.write(line.format(n % 1000))
        def status(key):
            with open("/proc/self/status") as lines:
                return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

        text = token_files.prepare({str(folder / "big.txt")!r}, tokenizer.get("course"), Path({str(folder)!r}) / "t")
        peak = status("VmHWM")
        for step in range(200):
            data.batch_at(text.train, step, 8, 256, 0)
        print(peak, status("RssAnon"), len(text.train))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *sizes, tokens = map(int, done.stdout.split())
    assert tokens > megabytes * 10**5
    return sizes


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_memory_stays_flat_from_50_to_200_megabytes(tmp_path):
    for small, large in zip(memory(50, tmp_path), memory(200, tmp_path)):
        assert large - small < 25e6, f"{small / 1e6:.0f} MB for 50 MB of text, {large / 1e6:.0f} MB for 200"
        print(f"{small / 1e6:.0f} MB, {large / 1e6:.0f} MB")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_two_gigabytes_of_text_take_less_than_one_of_memory(tmp_path):
    peak, own = memory(2000, tmp_path)
    print(f"peak {peak / 1e6:.0f} MB, its own after reading {own / 1e6:.0f} MB")
    assert peak < 1e9
