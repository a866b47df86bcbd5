"""Charts by matplotlib's object interface: no global state, and no backend that a machine without a screen lacks."""

from __future__ import annotations

from typing import Any

from quantization.errors import UserError
from quantization.files import atomic_write


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib ``Figure``.

    Args:
        width: inches.
        height: inches.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"charts need matplotlib ({error}): pip install matplotlib") from error
    return Figure(figsize=(width, height))


def save_figure(figure: Any, picture: str) -> None:
    """Write a figure; the file appears complete or not at all, and the same figure makes the same bytes.

    Args:
        figure: from ``new_figure``.
        picture: .png or .svg.
    """
    import matplotlib

    figure.tight_layout()
    vectors = picture.endswith(".svg")
    with atomic_write(picture) as temporary, matplotlib.rc_context({"svg.hashsalt": "figure"}):
        figure.savefig(temporary, dpi=130, metadata={"Date": None} if vectors else None)
