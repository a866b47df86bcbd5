"""Upstream's readers of data sets: run in a checkout, ``python data_tasks.py TASK ARGUMENTS``.

Results are printed as JSON on the last line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable

sys.path[:0] = ["."]

from quantization.upstream.shims import install_shims

install_shims(scripts=True)


def read_images(name: str, *paths: str) -> Any:
    """Label rows by image, as upstream's data set holds them after it has read ``paths``."""
    if name == "yolov5":
        from utils.dataloaders import LoadImagesAndLabels
    else:
        from utils.datasets import LoadImagesAndLabels
    dataset = LoadImagesAndLabels(list(paths), 64, 2, stride=32)
    files = dataset.im_files if name == "yolov5" else dataset.img_files
    return {os.path.abspath(file): labels.tolist() for file, labels in zip(files, dataset.labels)}


def rectangles(name: str, listing: str) -> Any:
    """Order of the images in evaluation, and height and width of each batch of 4."""
    if name == "yolov5":
        from utils.dataloaders import LoadImagesAndLabels
    else:
        from utils.datasets import LoadImagesAndLabels
    dataset = LoadImagesAndLabels(listing, 128, 4, rect=True, stride=32, pad=0.5)
    files = dataset.im_files if name == "yolov5" else dataset.img_files
    return [os.path.abspath(file) for file in files], dataset.batch_shapes.tolist()


def read_yaml(name: str, file: str) -> Any:
    """What upstream makes of a data.yaml."""
    from utils.general import check_dataset

    if name == "yolov5":
        data = check_dataset(file, autodownload=False)
        return {"val": data["val"], "names": list(data["names"].values())}
    import yaml

    with open(file) as handle:
        data = yaml.safe_load(handle)
    check_dataset(data)
    return {"val": os.path.realpath(data["val"]), "names": data["names"]}


TASKS: dict[str, Callable[..., Any]] = {"read_images": read_images, "read_yaml": read_yaml, "rectangles": rectangles}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
