"""The files of the page that shows how a model reads: served one by one, or all in one file that needs no server."""

import base64
import hashlib
import html
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from blt.inspection.patch_view import SEPARATOR, PatchView, glyphs
from blt.inspection.reading import Reading

FOLDER = Path(__file__).parent / "page"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_IMPORT = re.compile(r'^import \{ [\w, ]+ \} from "\./(\w+\.js)";\n', flags=re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|class|const|let)", flags=re.MULTILINE)
_STATE = '<script type="application/json" id="saved"></script>'
_NO_SCRIPT = re.compile(r"<noscript>.*?</noscript>")


@cache
def page_files() -> dict[str, tuple[str, bytes]]:
    """Return the files that a server offers, by name: their content type and their bytes.

    `index.html` is the page itself, which asks for the others under `page/`; `saved.html` is the page without a server,
    into which the browser writes a reading to be saved.
    """
    files = {
        path.name: (CONTENT_TYPES[path.suffix], path.read_bytes())
        for path in sorted(FOLDER.iterdir())
        if path.suffix in CONTENT_TYPES
    }
    return files | {"saved.html": (CONTENT_TYPES[".html"], _page_in_one_file().encode())}


def html_page(view: PatchView, reading: Reading, *, title: str, heat: str = "surprise") -> str:
    """Return a page that shows a reading without a server, and asks for nothing from elsewhere.

    Args:
        view: the patches, for browsers that run no scripts.
        reading: what the page draws from.
        title: what the text is called, such as a file's name.
        heat: what the bars show at first, `surprise` or `entropy`.
    """
    left_out = f"{title}; the last {view.num_bytes_left_out:,} bytes are left out" if view.num_bytes_left_out else title
    state = {
        "model": {"id": left_out, "rule": view.rule, "has_entropy_model": bool(reading.entropies)},
        "readings": [reading.to_dict()],
        "rules": [view.rule],
        "heat": heat,
        "byteByByte": False,
    }
    page = _page_in_one_file()
    page = page.replace("<title>blt: how a model reads</title>", f"<title>Patches: {html.escape(title)}</title>")
    page = _NO_SCRIPT.sub(lambda _: f"<noscript><pre>{html.escape(_as_text(view))}</pre></noscript>", page)
    return page.replace(_STATE, _STATE.replace("></", f">{_json(state)}</"))


def _as_text(view: PatchView) -> str:
    return SEPARATOR.join("".join(glyph.text for glyph in glyphs(patch)) for patch in view.patches)


def _json(state: dict[str, Any]) -> str:
    """Return JSON that cannot end the element that it lies in."""
    return json.dumps(state).replace("<", "\\u003c")


@cache
def _page_in_one_file() -> str:
    """Return the page with its style and its modules inlined; its security policy allows them by their hashes."""
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    script = bundled("app.js").replace("</script", "<\\/script")
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:"
    charset = '<meta charset="utf-8">'
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    for served, inlined in {
        charset: f'{charset}\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="stylesheet" href="page/style.css">': f"<style>{style}</style>",
        '<script type="module" src="page/app.js"></script>': f'<script type="module">{script}</script>',
    }.items():
        assert page.count(served) == 1, served
        page = page.replace(served, inlined)
    return page


def bundled(name: str) -> str:
    """Return a module with all that it imports in front of it, as one module.

    The modules share one scope then, so no two may declare the same name; `tests/unit/inspection` holds that.
    """
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        if name in modules:
            return
        source = (FOLDER / name).read_text(encoding="utf-8")
        for imported in _IMPORT.findall(source):
            add(imported)
        modules[name] = _EXPORT.sub("", _IMPORT.sub("", source))

    add(name)
    return "\n".join(modules.values())


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
