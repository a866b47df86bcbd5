"""DOT text and its pictures, by the package ``graphviz`` and Graphviz' program ``dot``.

The package is imported only when something is drawn, so that reports work without it.
"""

from __future__ import annotations

from typing import Any

from quantization.errors import UserError


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
    return picture


def _package() -> Any:
    try:
        import graphviz
    except ImportError as error:
        raise UserError("the Python package graphviz, which draws, is not installed: pip install graphviz") from error
    return graphviz
