"""Inspection: what a model does, shown and checked.

In: a `LanguageModel` and a text. Out: `LawReport`s, which say whether the laws hold on this checkpoint, and a
`PatchView`, which shows how the text falls into patches. Next: `blt verify`, `blt patch`.
"""

from blt.inspection.deviation import LawReport
from blt.inspection.patch_view import Glyph, PatchView, glyphs, print_patches, view_patches
from blt.inspection.reading import Reading, flops_by_patch, read
from blt.inspection.verify import LAWS, verify
from blt.inspection.web_page import html_page, page_files

__all__ = [
    "LAWS",
    "Glyph",
    "LawReport",
    "PatchView",
    "Reading",
    "flops_by_patch",
    "glyphs",
    "html_page",
    "page_files",
    "print_patches",
    "read",
    "verify",
    "view_patches",
]
