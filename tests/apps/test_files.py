"""What visitors bring is read as text, bounded, and gone soon; no file of the server but the site's own can be had."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from apps import limits
from llm_core import presets
from llm_core.hf_config import to_hf
from tests.apps.conftest import ROOT, serve, stop
from tests.load.client import Visitor

SECRET = "nobody else may read this"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder for the site's temporary files, with a link in it that leads out, and a file beside it."""
    folder = tmp_path_factory.mktemp("outside") / "gradio"
    folder.mkdir()
    (folder.parent / "secret.txt").write_text(SECRET)
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def address(place):
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(place)
    process, address = serve()
    yield address
    printed = stop(process)
    os.environ.pop("GRADIO_TEMP_DIR") if before is None else os.environ.update(GRADIO_TEMP_DIR=before)
    # Gradio writes one into the log for each path that a visitor made up, and nothing else does.
    assert printed.count("Traceback") == printed.count("exceptions.InvalidPathError:") == 5, printed[-3000:]


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read(10_000).decode(errors="replace")
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode(errors="replace")


def upload(address: str, name: str, content: bytes) -> tuple[int, str]:
    line = "a-line-that-no-file-holds"
    body = (f'--{line}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n").encode() + content + f"\r\n--{line}--\r\n".encode()
    request = urllib.request.Request(f"{address}/gradio_api/upload", body,
                                     {"Content-Type": f"multipart/form-data; boundary={line}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)[0]
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode(errors="replace")


def read_as_config(address: str, path: str) -> list:
    """What the page Architecture answers when a visitor says that an uploaded file lies at this path."""
    with urllib.request.urlopen(f"{address}/config") as answer:
        visitor = Visitor(int(address.rpartition(":")[2]), json.load(answer))
    event = "architecture_upload"
    inputs = visitor.inputs(event)
    inputs[0] = {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
    return visitor.ask(event, inputs).data


def test_no_file_but_the_sites_own_is_given(address, place):
    for path in ("/etc/passwd", f"{ROOT}/README.md", f"{ROOT}/llm_core/config.py", f"{place.parent}/secret.txt",
                 f"{place}/../secret.txt", f"{place}/link.txt", "../../etc/passwd", "README.md", ".", "/", "~/.bashrc",
                 "file:///etc/passwd", "\x00", "....//....//etc/passwd"):
        for form in (quote(path, safe="/:"), quote(path, safe=""), quote(quote(path, safe=""), safe="")):
            for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "svelte/"):
                code, body = get(f"{address}/{route}{form}")
                assert code in (400, 401, 403, 404, 405, 422, 500) and SECRET not in body and "root:" not in body, (
                    route + form, code)


def test_what_is_uploaded_is_read_and_gone(address, place):
    config = json.dumps(to_hf(presets.get("gpt2"))).encode()
    code, path = upload(address, "config.json", config)
    assert code == 200 and Path(path).is_relative_to(place) and Path(path).read_bytes() == config
    assert "Read: 124,439,808 parameters" in json.dumps(read_as_config(address, path))
    assert not Path(path).exists()


@pytest.mark.parametrize("name, content, sentence", [
    ("config.json", b"\x80\x04\x95 a pickle is no text \xff", "this file is no text in UTF-8"),
    ("config.json", b"[" * 100_000, "nested"),
    ("config.json", b"{" + b" " * 300_000 + b"}", "at most 200,000 are read"),
    ("config.py", b"import os; os.abort()", "JSON"),
    ("../../../evil.json", b"{}", "model_type")])
def test_what_cannot_be_read_is_said_and_gone(address, place, name, content, sentence):
    code, path = upload(address, name, content)
    assert code == 200 and Path(path).resolve().is_relative_to(place)
    assert sentence in json.dumps(read_as_config(address, path), ensure_ascii=False)
    assert not Path(path).exists()


def test_a_large_file_is_not_taken(address, place):
    before = {path for path in place.rglob("*") if path.is_file()}
    code, said = upload(address, "config.json", b" " * (limits.UPLOAD_MB * 2**20 + 1))
    assert code == 413 or "exceed" in said
    assert {path for path in place.rglob("*") if path.is_file()} <= before


@pytest.mark.parametrize("path", ["/etc/passwd", "{place}/../secret.txt", "{place}/link.txt", "README.md",
                                  "{root}/README.md"])
def test_a_path_that_a_visitor_makes_up_is_not_read(address, place, path):
    path = path.format(place=place, root=ROOT)
    with pytest.raises(RuntimeError, match="failed") as refused:
        read_as_config(address, path)
    assert SECRET not in str(refused.value) and "root:" not in str(refused.value)
    for kept in (place.parent / "secret.txt", place / "link.txt", ROOT / "README.md"):
        assert kept.exists()
