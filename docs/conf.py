"""How Sphinx builds the site; `docs/make_site.py` calls it. Nothing on a page comes from another server."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "kdcourse"
author = "the kdcourse authors"
copyright = author
html_title = "Knowledge distillation"

extensions = ["myst_nb", "coursesite", "coursesite.passages", "coursesite.lean"]
exclude_patterns = ["extra"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
templates_path = []

# Outputs are those that the notebooks hold; widgets would ask another server for their script.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
html_math_renderer = "mathml"

highlight_language = "text"
pygments_style = "coursesite.colours.Light"
pygments_dark_style = "coursesite.colours.Dark"
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_extra_path = []  # coursesite adds pictures and editions
html_css_files = ["course.css"]
html_js_files = [(script, {"defer": "defer"}) for script in ("course.js", "predict.js", "turn/parts.js")]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
