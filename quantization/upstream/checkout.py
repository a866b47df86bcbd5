"""The two upstreams, and which one a folder holds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from quantization.errors import UserError
from quantization.onnx_graph.origin import Origin
from quantization.upstream.shims import install_shims


@dataclass(frozen=True)
class Upstream:
    """One of the two projects.

    Attributes:
        name: "yolov5" or "yolov7".
        markers: files, relative to the checkout, that only this project has.
        iou: its own default threshold of non-maximum suppression in evaluation.
        gains: of the parts of its loss, by default, for 80 classes, three levels and 640 pixels.
    """

    name: str
    markers: tuple[str, ...]
    iou: float
    gains: Mapping[str, float]

    @property
    def origin(self) -> Origin:
        """As its exports tell it."""
        return Origin(self.name, self.iou)


UPSTREAMS = {
    "yolov5": Upstream(
        "yolov5", ("models/yolo.py", "utils/dataloaders.py", "val.py"), 0.6, {"box": 0.05, "cls": 0.5, "obj": 1.0}
    ),
    "yolov7": Upstream(
        "yolov7", ("models/yolo.py", "utils/datasets.py", "test.py"), 0.65, {"box": 0.05, "cls": 0.3, "obj": 0.7}
    ),
}


def upstream_of(folder: Path) -> str | None:
    """Which upstream a folder is a checkout of; None: of neither."""
    found = (u.name for u in UPSTREAMS.values() if all((folder / marker).is_file() for marker in u.markers))
    return next(found, None)


def enter_checkout(name: str, folder: Path | None = None) -> Upstream:
    """Make the checkout's ``models`` and ``utils`` importable, with the shims installed.

    Args:
        name: "yolov5" or "yolov7".
        folder: the checkout; None: the folder that holds ``quantization``.

    Raises:
        UserError: the folder is no checkout, or one of the other project.
    """
    folder = Path(__file__).resolve().parents[2] if folder is None else folder
    wanted = UPSTREAMS[name]
    found = upstream_of(folder)
    if found != name:
        if found is not None:
            raise UserError(f"{folder} is a {found} checkout: run scripts/qat-{found}.py there")
        raise UserError(
            f"{folder} is no {name} checkout ({', '.join(wanted.markers)} expected): "
            f"run cp -r quantization scripts /path/to/{name}, and scripts/qat-{name}.py from there"
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    install_shims()
    return wanted
