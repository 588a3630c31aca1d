"""Take the picture of the page in the guide "See how a model reads", from the bundled model and the server itself.

    python docs/tools/screenshot.py

Needs Playwright and a Chromium (`BLT_CHROMIUM` names another than the one on the path).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

TARGET = Path(__file__).parents[1] / "images" / "page.png"
TEXT = 'Lily saw a big red ball in the park. She wanted to play with it. Her mom said, "No, it is not ours."'


def main() -> None:
    """Start the server, write a text, compare two rules, and rest on a byte."""
    chromium = os.environ.get("BLT_CHROMIUM") or shutil.which("chromium")
    command = [sys.executable, "-m", "blt", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stderr is not None
        address = server.stderr.readline().split(": ", 1)[1].split(" ")[0]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 880}, color_scheme="light")
        page.goto(address)
        page.wait_for_selector(".patch")
        page.fill("#editor", TEXT)
        page.click("text=Compare two rules")
        page.wait_for_timeout(2000)
        page.locator(".glyph").nth(27).click()
        page.mouse.move(1, 1)
        page.wait_for_timeout(300)
        page.screenshot(path=TARGET)
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
