"""
What pages for a browser have in common.

Nothing but what is inside may run, whatever texts they show. ``pages.css`` and ``pages.js`` stand before the style and
the script of each.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources

__all__ = ["embedded", "file_text", "html_page"]


def html_page(title: str, body: str, *, data: str, style: str, script: str) -> str:
    """
    A document that is complete in itself.

    Parameters
    ----------
    title, body : str
        HTML, escaped already.
    data : str
        JSON for the script, as `embedded` writes it.
    style, script : str
        Of this page. The script finds ``data``, ``get``, ``all``, ``add`` and ``SVG`` there.
    """
    style, script = file_text("pages.css") + style, file_text("pages.js") + script
    # Forbids all else.
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
    """As JSON for a script element: no character of it can end the element, or begin a comment."""
    text = json.dumps(value, separators=(",", ":"))
    changes: list[tuple[str, str]] = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")]
    for character, code in changes:
        text = text.replace(character, code)
    return text


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
