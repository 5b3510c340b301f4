"""What pages for a browser have in common: nothing but what is inside may run, whatever texts they show."""

from __future__ import annotations

import base64
import hashlib
import json

__all__ = ["content_policy", "embedded"]


def content_policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page with this style and this script, which forbids all else."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'; "
        "form-action 'none'"
    )


def embedded(value: object) -> str:
    """As JSON for a script element: no character of it can end the element, or begin a comment."""
    text = json.dumps(value, separators=(",", ":"))
    changes: list[tuple[str, str]] = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")]
    for character, code in changes:
        text = text.replace(character, code)
    return text


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
