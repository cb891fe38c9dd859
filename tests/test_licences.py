"""The README's table of licences names every package, with the licence that the package itself states."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def names(lines) -> set[str]:
    return {re.match(r"[\w-]+", line).group() for line in lines if re.match(r"\w", line)}


def needed() -> set[str]:
    files = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-data.txt")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return names(line for text in files for line in text.splitlines()) | names(sum(extras.values(), []))


def stated(package: str) -> str:
    """By its metadata, or, where these say nothing, by the first lines of the licence that it brings."""
    about = importlib.metadata.metadata(package)
    said = " ".join([about.get("License-Expression") or "", (about.get("License") or "")[:200],
                     *(c for c in about.get_all("Classifier") or () if c.startswith("License"))])
    files = importlib.metadata.files(package) or ()
    return said.strip() or " ".join(file.read_text()[:200] for file in files if file.name == "LICENSE")


def table() -> dict[str, str]:
    """Package -> licence."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (MIT|Apache 2\.0|BSD|MPL 2\.0) \| (.*) \|$", text, re.MULTILINE)
    without_notes = {licence: re.sub(r" \([^)]*\)", "", packages).replace(" | ", ", ") for licence, packages in rows}
    return {package: licence for licence, packages in without_notes.items() for package in packages.split(", ")}


def test_every_package_is_there():
    assert set(table()) == needed()


@pytest.mark.parametrize("package, licence", table().items())
def test_the_licence_is_the_packages_own(package, licence):
    if package != "pip-audit":  # installed by `make audit` alone
        assert licence.split()[0] in stated(package)
