"""Stands in for upstream's training: the trained model is a text that names the seed."""

from __future__ import annotations

import sys
from pathlib import Path


def main(script: str, arguments: list[str]) -> None:
    """Write best.pt, and the first argument to log.txt."""
    assert script == "train.py"
    if arguments[0] == "--resume":
        folder = Path(arguments[1]).parent
        if "cannot resume" in Path(arguments[1]).read_text():
            sys.exit("AssertionError: nothing to resume")
    else:
        folder = Path(arguments[arguments.index("--project") + 1], "run", "weights")
        data = Path(arguments[arguments.index("--data") + 1])
        assert len(data.parent.joinpath("train.txt").read_text().split()) == 3
        folder.mkdir(parents=True)
    (folder / "best.pt").write_text("seed " + folder.parents[1].name.split("-")[-1])
    (folder / "log.txt").write_text(arguments[0])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
