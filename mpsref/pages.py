"""
Common parts of pages for a browser.

Only their own script may run, whatever text they show. ``pages.css`` and ``pages.js`` precede the style and the script
of each page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources

__all__ = ["embedded", "file_text", "html_page"]


def html_page(title: str, body: str, *, data: str, style: str, script: str) -> str:
    """
    A self-contained document.

    The title and the body are escaped HTML; `data` is JSON from `embedded`. The script may use ``data``, ``get``,
    ``all``, ``add`` and ``SVG``.
    """
    style, script = file_text("pages.css") + style, file_text("pages.js") + script
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'; "
        "form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def file_text(*path: str) -> str:
    """A text file of the package."""
    return resources.files("mpsref").joinpath(*path).read_text("utf-8")


def embedded(value: object) -> str:
    """JSON for a script element, which no text in it can end, nor begin a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
