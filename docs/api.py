"""The pages of the API, one for each module and class, made at each build from each module's ``__all__``."""

from __future__ import annotations

import enum
import importlib
import inspect
import shutil
from pathlib import Path
from typing import Any

MODULES = [
    "mpsref",
    "mpsref.neuron",
    "mpsref.verify",
    "mpsref.testing",
    "mpsref.testing.strategies",
    "mpsref.teach",
    "mpsref.sweep",
    "mpsref.record",
    "mpsref.proof",
]

GROUPS = {
    "mpsref.executor": "Graph",
    "mpsref.graph.nodes": "Image nodes, states and filter nodes",
    "mpsref.graph.neurons": "Neuron nodes",
    "mpsref.graph.arithmetic": "Additions and initial gradients",
    "mpsref.graph.file": "Graph files",
    "mpsref.image": "Images",
    "mpsref.image_bytes": "Images",
    "mpsref.neuron.descriptor": "Neurons",
    "mpsref.enums": "Enums",
    "mpsref.errors": "Errors",
}
"""What the names of the top module are about, by where they are defined."""


def write(folder: Path) -> None:
    """
    Write a page for each public module and, in the folder ``classes``, for each class.

    Parameters
    ----------
    folder : Path
        Where to; what is there is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "classes").mkdir(parents=True)
    seen: dict[int, str] = {}
    for name in filter(_is_there, MODULES):
        text, classes = page(name, seen)
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
        for full, thing in classes.items():
            title = full.removeprefix("mpsref.")
            lines = [title, "=" * len(title), "", f".. currentmodule:: {name}", "", *_entry(full, thing), ""]
            (folder / "classes" / f"{full}.rst").write_text("\n".join(lines), encoding="utf-8")


def summaries() -> list[str]:
    """One row of Markdown for each public module."""
    rows = []
    for name in filter(_is_there, MODULES):
        summary = (inspect.getdoc(importlib.import_module(name)) or "").split("\n\n")[0]
        rows.append(f"| `{name}` | {' '.join(summary.replace('``', '`').split())} |")
    return rows


def _is_there(name: str) -> bool:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return False
    return bool(getattr(module, "__all__", ()))


def page(name: str, seen: dict[int, str]) -> tuple[str, dict[str, type]]:
    """
    The page of one module.

    Parameters
    ----------
    name : str
        Of the module.
    seen : dict
        By identity, the full name of what other pages have explained; this page's names are added.

    Returns
    -------
    str
        reStructuredText.
    dict of str to type
        The classes that have pages of their own, by their full names.
    """
    module = importlib.import_module(name)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "", f".. currentmodule:: {name}", ""]
    groups: dict[str, list[str]] = {}
    elsewhere: list[str] = []
    classes: dict[str, type] = {}
    for each in module.__all__:
        thing = getattr(module, each)
        if inspect.ismodule(thing):
            elsewhere.append(f":doc:`{thing.__name__}`")
        elif (first := seen.setdefault(id(thing), f"{name}.{each}")) != f"{name}.{each}":
            elsewhere.append(f"`{each} <{first}>`")
        else:
            groups.setdefault(_group(name, each, thing), []).append(each)
    order = [*GROUPS.values(), "Classes", "Functions", "Data"]
    for group in sorted(groups, key=order.index):
        lines += [group, "-" * len(group), ""]
        lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {each}" for each in groups[group]), ""]
        for full, thing in ((f"{name}.{each}", getattr(module, each)) for each in groups[group]):
            if inspect.isclass(thing):
                classes[full] = thing
            else:
                lines += [*_entry(full, thing), ""]
    if elsewhere:
        lines += ["Explained elsewhere", "-------------------", "", ", ".join(elsewhere), ""]
    if classes:
        lines += [".. toctree::", "   :hidden:", "", *(f"   classes/{full}" for full in sorted(classes)), ""]
    return "\n".join(lines), classes


def _group(name: str, each: str, thing: Any) -> str:
    if name == "mpsref":
        return GROUPS.get(getattr(thing, "__module__", ""), "Neurons")
    return "Classes" if inspect.isclass(thing) else "Functions" if callable(thing) else "Data"


def _entry(full: str, thing: Any) -> list[str]:
    if not inspect.isclass(thing):
        return [f".. autofunction:: {full}" if callable(thing) else f".. autodata:: {full}\n   :no-value:"]
    lines = [f".. autoclass:: {full}", "   :members:"]
    if issubclass(thing, enum.Enum):
        lines += ["   :undoc-members:", "   :member-order: bysource"]
    if any(base.__module__.startswith("mpsref") for base in thing.__bases__):
        lines.append("   :show-inheritance:")
    return lines


def signature(app: Any, what: str, name: str, thing: Any, options: Any, given: str, returns: str) -> Any:
    """Sphinx asks how a thing is called: a class as its ``__init__`` says, though its metaclass takes anything."""
    from sphinx.util.inspect import stringify_signature  # noqa: PLC0415  # Sphinx is there when it asks

    if what != "class" or not (given or "").startswith("(*args"):
        return None
    own = inspect.signature(thing.__init__)
    if any(one.kind is one.VAR_POSITIONAL for one in own.parameters.values()):
        return "", returns
    bare = own.replace(parameters=list(own.parameters.values())[1:])
    return stringify_signature(bare, show_annotation=False, show_return_annotation=False), returns
