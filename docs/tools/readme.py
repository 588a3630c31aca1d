"""Write the README's tables from the records.

python docs/tools/readme.py
"""

import re

from records import ROOT, TABLES

README = ROOT / "README.md"
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def filled(text: str) -> str:
    """Return the text with every table between its marks as the records have it."""

    def write(match: re.Match[str]) -> str:
        table = TABLES[match[2]](lambda name: f"benchmarks/records/{name}.json")
        return f"{match[1]}{table}\n{match[3]}"

    return _TABLE.sub(write, text)


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
