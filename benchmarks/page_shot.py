"""Screenshots of a suite's page, for README and docs/page.md, in the chromium of the system.

`python -m benchmarks.page_shot [results/shapes/index.html] [docs/images]` writes page.png (its top)
and page_picture.png (a picture with the heat of a patch).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TOP = {"width": 1000, "height": 1210}
PICTURE = {"width": 1000, "height": 880}
SHOWN = 9  # of the pictures of a benchmark: the first that was drawn by lot
PATCH = (0.5, 0.85)  # pointed at, of the height and of the width


def main() -> None:
    """Open the page, point at a patch, write both pictures."""
    words = sys.argv[1:]
    page_file = Path(words[0] if words else "results/shapes/index.html").resolve()
    folder = Path(words[1] if words[1:] else "docs/images")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport=TOP, color_scheme="light")
        page.goto(page_file.as_uri())
        page.screenshot(path=folder / "page.png")
        page.set_viewport_size(PICTURE)
        page.locator(".gallery a").nth(SHOWN - 1).click()
        page.wait_for_selector("#picture[open]")
        box = page.locator("#heat").bounding_box()
        assert box is not None
        row, column = PATCH
        page.mouse.move(box["x"] + column * box["width"], box["y"] + row * box["height"])
        page.screenshot(path=folder / "page_picture.png")
        browser.close()


if __name__ == "__main__":
    main()
