"""Each figure of a lesson is there as a picture too, drawn from that very figure."""

import base64

import nbformat
import pytest

from tests.lesson_pictures import PICTURE, figures, is_drawn, notebooks


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_every_figure_has_its_picture(path):
    found = figures(nbformat.read(path, as_version=4))
    assert found, "a lesson has a picture"
    for output in found:
        assert is_drawn(output), "run `make pictures`"
        assert base64.b64decode(output.data[PICTURE]).startswith(b"\xff\xd8")
