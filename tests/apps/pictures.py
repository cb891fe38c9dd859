"""Take the pictures of the site that README.md and the course show: python tests/apps/pictures.py

It starts the site, looks at each page in a state worth seeing, and writes course/pictures/NAME.png, 1,280 pixels wide.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from conftest import ARGUMENTS, chromium_path, serve, settle, stop  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

PICTURES = {  # name -> address, height, and what must have been drawn
    "journey": ("/journey?model=smollm2-135m-instruct&sentence=The+capital+of+France+is&token=4&layer=23&head=4", 1500,
                "#lens .main-svg, .main-svg"),
    "architecture": ("/architecture?preset=deepseek-v3&beside=gpt2", 1000, "#chart .main-svg"),
    "mla": ("/mla?preset=deepseek-v3&context=131072", 1050, ".main-svg"),
    "moe": ("/moe?tab=text&block=1", 900, ".main-svg"),
    "mtp": ("/mtp?depth=1", 1150, ".main-svg"),
    "rope": ("/rope?preset=deepseek-v3", 1000, ".main-svg"),
    "training": ("/training?block=deepseek&attention=MLA&feed_forward=moe", 1000, ".main-svg"),
}


def main() -> None:
    folder = ROOT / "course" / "pictures"
    folder.mkdir(exist_ok=True)
    process, address = serve()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
            for name, (path, height, drawn) in PICTURES.items():
                page = browser.new_page(viewport={"width": 1280, "height": height})
                page.running = set()
                page.goto(address + path)
                page.locator(drawn).first.wait_for(timeout=60_000)
                page.wait_for_timeout(4000)  # for every chart of the page, and its fonts
                settle(page)
                file = folder / f"{name}.png"
                page.screenshot(path=file)
                Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)  # a few colours are enough
                print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")
                page.close()
            browser.close()
    finally:
        stop(process)


if __name__ == "__main__":
    main()
