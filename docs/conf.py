"""How the site is built: ``sphinx-build -W docs site``. It reads this folder and the package, and no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import api  # noqa: E402
import drawings  # noqa: E402
import live  # noqa: E402
import notebooks  # noqa: E402
import pages  # noqa: E402
from docutils import nodes  # noqa: E402
from sphinx.util.docutils import SphinxDirective  # noqa: E402

import mpsref  # noqa: E402

project = "mpsref"
author = "The mpsref authors"
project_copyright = author
release = version = mpsref.__version__
language = "en"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["**/README.md", "lessons/*"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
default_role = "py:obj"
smartquotes = False

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4

autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

lessons = sorted((HERE / "lessons").glob("*.py"))
if lessons:
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": "lessons",
        "gallery_dirs": "lessons_built",
        "filename_pattern": r"\.py$",
        "abort_on_example_error": True,
        "reset_modules": ("matplotlib",),
        "reset_modules_order": "both",
        "capture_repr": ("_repr_html_", "__repr__"),
        "image_scrapers": ("figures.scraped",),
        "within_subsection_order": "FileNameSortKey",
        "show_memory": False,
        "show_signature": False,
        "write_computation_times": False,
        "min_reported_time": 1_000_000,
        "notebook_extensions": set(),  # answers are hidden by HTML that a notebook would show as text
        "download_all_examples": False,
        "remove_config_comments": True,
        "plot_gallery": True,
        "only_warn_on_example_error": False,
    }

html_theme = "pydata_sphinx_theme"
html_title = "mpsref"
html_static_path = ["_static"]
html_css_files = ["site.css", "lessons.css"]
html_copy_source = False
html_show_sourcelink = False
# The summaries are fetched, and a page that is read from disk may fetch nothing.
html_show_search_summary = False
html_theme_options = {
    "logo": {"text": "mpsref"},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {"**": ["page-toc"], "special-values": []},  # its tables are wide
    "show_nav_level": 1,
    "show_prev_next": True,
    "use_edit_page_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "**": ["sidebar-nav-bs"]}


class Live(SphinxDirective):
    """``.. live:: NAME``: a page of `live` within a lesson."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What it becomes."""
        text = live.frame(self.arguments[0], "../" * self.env.docname.count("/"))
        return [nodes.raw("", text, format="html")]


def setup(app: Any) -> None:
    """Make what is made at each build, and let pages say where in the site their links lead."""
    api.write(HERE / "api")
    drawings.plots(HERE / "plots")
    live.write(HERE / "_static" / "live")
    notebooks.write()
    app.add_directive("live", Live)
    app.connect("source-read", pages.read)
    app.connect("autodoc-process-signature", api.signature)
