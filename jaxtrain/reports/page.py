"""A page that opens in a browser without a network: one HTML file with its style, its script and its figures."""

import base64
import hashlib
import html
import io
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrain.files import read_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compose_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """Composes the page of a title (text) and a body (HTML); `style` is added to that of all pages."""
    here = Path(__file__)
    # The page's policy allows only this script, so that markup in a name could never run another.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return string.Template(read_text(here.with_name("page.html"))).substitute(
        title=html.escape(title),
        body=body,
        style=read_text(here.with_name("page.css")) + style,
        script=f"<script>{script}</script>" if script else "",
        scripts=f"'sha256-{digest}'" if script else "'none'",
    )


def paragraphs(sentences: Iterable[str]) -> str:
    """Returns texts as paragraphs of HTML."""
    return "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def inline_svg(name: str, figure: "Figure", link: str = "") -> str:
    """Renders a figure as inline SVG: text stays text, and matplotlib's ids, which repeat in every figure, go.

    A mark whose link is `link` and a number gets that number as `data-trial`.
    """
    from matplotlib import rc_context

    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    width = figure.get_figwidth() * 72
    label = html.escape(name.replace("_", " "))
    opening = f'<svg role="img" aria-label="{label}" style="--width: {width:.0f}"'
    text = text[text.index("<svg") :].replace("<svg", opening, 1)
    if link:
        text = re.sub(rf'<a xlink:href="{link}(\d+)"[^>]*>', r'<g data-trial="\1">', text).replace("</a>", "</g>")
    text = re.sub(r'<g id="[\w.]+_\d+">', "<g>", text)
    return re.sub(r"\n\s*", "\n", text)
