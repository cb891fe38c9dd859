"""`make pictures`: each lesson's figures as pictures too, beside the ones that JupyterLab draws.

GitHub's viewer and others draw no Plotly figure, but show the picture that lies in the same output. It is drawn from
the stored figure itself, in an installed Chromium; its metadata say of which one. JPEG, since JupyterLab would show a
PNG in the figure's place until its cell is run.
"""

import base64
import hashlib
import io
import json
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PLOTLY, PICTURE, MARK = "application/vnd.plotly.v1+json", "image/jpeg", "picture_of"
WIDTH = 800
DRAW = """async ([figure, width]) => {
    const layout = {...figure.layout, paper_bgcolor: "white", plot_bgcolor: "white", width};
    const place = document.body.appendChild(document.createElement("div"));
    await Plotly.newPlot(place, figure.data, layout, {staticPlot: true});
    const picture = await Plotly.toImage(place, {format: "png", width, height: layout.height || 450});
    place.remove();
    return picture;
}"""


def notebooks() -> list[Path]:
    return sorted((ROOT / "course").glob("*/*.ipynb"))


def figures(notebook) -> list:
    """The outputs that hold a figure."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
            if PLOTLY in output.get("data", {})]


def mark(figure: dict) -> str:
    return hashlib.sha256(json.dumps(figure, sort_keys=True).encode()).hexdigest()[:16]


def is_drawn(output) -> bool:
    return PICTURE in output.data and output.metadata.get(MARK) == mark(output.data[PLOTLY])


def main() -> None:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    from llm_core.plots import plotly_script
    from tests.apps.conftest import ARGUMENTS, chromium_path

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        page = browser.new_page()
        page.add_script_tag(content=plotly_script())
        for path in notebooks():
            notebook = nbformat.read(path, as_version=4)
            wanted = [output for output in figures(notebook) if not is_drawn(output)]
            for output in wanted:
                drawn = page.evaluate(DRAW, [output.data[PLOTLY], WIDTH]).partition(",")[2]
                small, picture = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB")
                picture.save(small, "jpeg", quality=60, optimize=True)
                output.data[PICTURE] = base64.b64encode(small.getvalue()).decode()
                output.metadata[MARK] = mark(output.data[PLOTLY])
            if wanted:
                nbformat.write(notebook, path)
            print(f"{path.relative_to(ROOT)}: {len(wanted)} drawn, {len(figures(notebook)) - len(wanted)} as they were")
        browser.close()


if __name__ == "__main__":
    main()
