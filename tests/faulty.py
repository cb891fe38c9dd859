"""Programs that run into a fault: a signal at a certain moment, a full disk, a folder that cannot be written to."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# In a namespace of their own, mounts are seen by that one program alone, and are gone when it ends.
NAMESPACE = ["unshare", "--mount"] + ([] if getattr(os, "geteuid", lambda: 1)() == 0 else ["--map-root-user"])
FULL = """
mount -t tmpfs -o size=$0 none "$1" && cd "$1" || exit 99
cp -r "$2/." . ; shift 2
"$@"; code=$?
cp -r . ../kept; exit $code
"""
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@" || exit 99'


@functools.cache
def mounts() -> bool:
    """Whether a program may be given mounts of its own here."""
    if not shutil.which("unshare"):
        return False
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif("not __import__('tests.faulty').faulty.mounts()",
                                  reason="this system lets no program have mounts of its own")


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests" / "faults"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def run(*command: str, cwd: Path, before=(), **more: str) -> subprocess.CompletedProcess:
    """`python -m` command, to its end; `more` goes into its environment."""
    return subprocess.run([*before, sys.executable, *command], cwd=cwd, env=environment(**more), capture_output=True,
                          text=True, timeout=120)


def on_full_disk(*command: str, size: str, tmp_path: Path, holds: Path | None = None) -> subprocess.CompletedProcess:
    """The same in a disk of so many bytes, which has a copy of `holds`. What is there at the end: tmp_path/kept."""
    shutil.rmtree(tmp_path / "kept", ignore_errors=True)
    for name in ("disk", "nothing"):
        (tmp_path / name).mkdir(exist_ok=True)
    before = [*NAMESPACE, "sh", "-c", FULL, size, str(tmp_path / "disk"), str(holds or tmp_path / "nothing")]
    return run(*command, cwd=tmp_path, before=before)


def in_read_only(*command: str, folder: Path, **more: str) -> subprocess.CompletedProcess:
    return run(*command, cwd=folder, before=[*NAMESPACE, "sh", "-c", READ_ONLY, str(folder)], **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def last_line(done: subprocess.CompletedProcess) -> str:
    """What it said at the end. Progress bars write over their own line."""
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    lines = done.stderr.replace("\r", "\n").strip().splitlines()
    return lines[-1] if lines else ""
