"""`python -m apps.space FOLDER` lays the site out as a Hugging Face Space: the files that one pushes there, no more.

    README.md         its first lines tell the hub what to run
    app.py            starts the site on the address that the hub asks for
    requirements.txt  what the site needs, in the exact versions of constraints.txt
    llm_core/, apps/  the packages, with the small trained models (20 MB)

Nothing is sent anywhere. SmolLM2 and the plays are left out: they come from packages that must be installed without
what these ask for, and the site says which model is missing.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_THERE = {"gradio", "jupyterlab", "tqdm"}  # the hub installs Gradio itself; lessons and training stay at home

APP = '''"""The site as a Hugging Face Space."""

import os
import sys

from apps import site, starting

try:  # the hub reaches the program from outside its container, at these
    starting.launch(site.build(), os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), int(os.environ.get("PORT", 7860)),
                    prepare=site.prepare)
except OSError as problem:  # such as a port in use
    sys.exit(str(problem))
'''


def readme(gradio_version: str) -> str:
    return f"""---
title: Build DeepSeek from scratch
sdk: gradio
sdk_version: {gradio_version}
python_version: "3.12"
app_file: app.py
license: mit
short_description: From GPT-2 to DeepSeek-V3, every idea under a slider
---

The site of the course "Build DeepSeek from scratch". The lessons are in its repository.
"""


def versions() -> dict[str, str]:
    """Package -> exact version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def requirements(pinned: dict[str, str]) -> str:
    """The site's own needs, pinned."""
    named = re.findall(r"^([\w-]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return "".join(f"{name}=={pinned[name.lower().replace('_', '-')]}\n" for name in named if name not in NOT_THERE)


def build(folder: Path) -> None:
    """Write the Space into a folder that is empty or not there yet. ValueError for any other."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder.name} is there and not empty; give the name of a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    pinned = versions()
    for name, text in (("README.md", readme(pinned["gradio"])), ("app.py", APP),
                       ("requirements.txt", requirements(pinned))):
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "LICENSE", folder)
    for package in ("llm_core", "apps"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m apps.space FOLDER")
    try:
        build(Path(sys.argv[1]))
    except (ValueError, OSError) as problem:
        sys.exit(str(problem))
    print(f"A Space lies in {sys.argv[1]}; try it with: cd {sys.argv[1]} && GRADIO_SERVER_NAME=127.0.0.1 python app.py")
