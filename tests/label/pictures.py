"""The pictures of docs/labels.md, from headless Chromium: `python -m tests.label.pictures`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from tests.label.served import Command, browser

DOCS = Path(__file__).parents[2] / "docs"
BREAD = "How do I keep bread fresh?"
TEXTS = {
    BREAD: [
        "In a **paper bag**, at room temperature:\n\n- not in the fridge\n- cut side down",
        "Bread gets old. Buy new bread.",
    ],
    "What is the capital of Egypt?": ["It is Cairo, on the Nile.", "I don't know."],
    "ما هي عاصمة مصر؟": ["القاهرة هي عاصمة مصر.", "الإسكندرية."],
    "Two and three?": ["Five, because 2 + 3 = 5.", "Six."],
    "Name a colour.": ["Blue, as the sky is.", "Stone."],
}
LONGER = """[...document.querySelectorAll(".card .rendered")].map(text => text.innerText.length)"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = [{"prompt": prompt, "completions": completions} for prompt, completions in TEXTS.items()]
        Path("written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        server = Command("written.jsonl", "--as", "pairs", "--raters", "ann,bob", "--port", "0", "--seed", "3")
        with browser() as chromium:
            for rater in ("ann", "bob"):
                window = chromium.new_page(viewport={"width": 760, "height": 460}, color_scheme="light")
                window.goto("/?token=".join(server.links[rater]))
                for done in range(1, len(rows) + 1):
                    if rater == "bob" and BREAD in window.inner_text(".prompt"):
                        window.screenshot(path=DOCS / "label_page.png", full_page=True)
                    first, second = window.evaluate(LONGER)
                    window.keyboard.press("t" if (rater, done) == ("bob", 1) else "1" if first > second else "2")
                    window.get_by_text(f"{done} of {len(rows)} done").wait_for()
            owner = chromium.new_page(viewport={"width": 560, "height": 300}, color_scheme="light")
            owner.goto("/?token=".join(next(link for name, link in server.links.items() if name not in ("ann", "bob"))))
            owner.screenshot(path=DOCS / "label_owner.png", full_page=True)
        server.end()
    print(*(f"{path.name}: {path.stat().st_size:,} bytes" for path in sorted(DOCS.glob("label_*.png"))), sep="\n")


if __name__ == "__main__":
    main()
