"""DOT text and its pictures, by the package ``graphviz`` and Graphviz' program ``dot``.

The package is imported only when something is drawn, so that reports work without it.
"""

from __future__ import annotations

import re
from typing import Any

from quantization.errors import UserError

_SIZE = re.compile(rb'<svg width="(\d+)pt" height="(\d+)pt"')
_WINDOW = 930  # points, of 4/3 pixels: a laptop's window
_LEAST_FACTOR = 0.5  # letters of 11 points stay legible


def new_digraph(name: str) -> Any:
    """An empty ``graphviz.Digraph``.

    Raises:
        UserError: the package graphviz is not installed.
    """
    return _package().Digraph(name)


def literal(text: str) -> str:
    """``text`` as a label, tooltip or name that DOT shows as it is: no escapes, no entities, no HTML.

    Raises:
        UserError: the package graphviz is not installed.
    """
    escaped: str = _package().escape(text.replace("&", "&amp;"))
    return escaped


def render(graph: Any, file_format: str) -> bytes:
    """Lay out and draw.

    Args:
        graph: a ``graphviz.Digraph``, or DOT text.
        file_format: ``svg`` or ``png``.

    Raises:
        UserError: Graphviz or its Python package is not installed, or dot fails.
    """
    package = _package()
    source = graph if isinstance(graph, str) else graph.source
    try:
        picture: bytes = package.pipe("dot", file_format, source.encode("utf-8"), quiet=True)
    except package.ExecutableNotFound as error:
        raise UserError(
            "Graphviz' program dot is not on the PATH: apt-get install graphviz "
            "(or conda install graphviz, or brew install graphviz)"
        ) from error
    except package.CalledProcessError as error:
        message = (error.stderr or b"").decode("utf-8", errors="replace").strip().splitlines()
        raise UserError(f"dot failed: {message[0] if message else f'exit code {error.returncode}'}") from error
    return _fitted(picture) if file_format == "svg" else picture


def _fitted(svg: bytes) -> bytes:
    """``svg`` to be shown as wide as a window, or at half its size if that is wider still.

    A browser opens an SVG file at its top left, which in a wide drawing is empty; dot's own ``size`` would change the units of
    the viewBox too.
    """
    head = _SIZE.search(svg)
    if head is None:
        return svg
    width, height = (int(group) for group in head.groups())
    factor = min(1.0, max(_LEAST_FACTOR, _WINDOW / width))
    size = f'<svg width="{width * factor:.0f}pt" height="{height * factor:.0f}pt"'
    return svg[: head.start()] + size.encode() + svg[head.end() :]


def _package() -> Any:
    try:
        import graphviz
    except ImportError as error:
        raise UserError("the Python package graphviz, which draws, is not installed: pip install graphviz") from error
    return graphviz
