"""Draw the images that upstream's training loader yields: mosaics, shifted, scaled, recoloured. Run in a checkout.

    python benchmarks/accuracy_mosaics.py yolov7 data/train2017.txt mosaics --imgsz 320 --count 500 --seed 0

The published tool calibrates on such images. The settings are those of upstream's own training from random weights:
yolov5's data/hyps/hyp.scratch-low.yaml and yolov7's data/hyp.scratch.p5.yaml (paste_in needs polygons: left out).
OUT receives images/*.png (IMGSZ square) and train2017.txt.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
from pathlib import Path

import bundle  # noqa: F401  # puts quantization on the import path

AUGMENTATION = dict(
    hsv_h=0.015,
    hsv_s=0.7,
    hsv_v=0.4,
    degrees=0.0,
    shear=0.0,
    perspective=0.0,
    flipud=0.0,
    fliplr=0.5,
    mosaic=1.0,
    copy_paste=0.0,
)
HYP = {
    "yolov5": dict(AUGMENTATION, translate=0.1, scale=0.5, mixup=0.0),
    "yolov7": dict(AUGMENTATION, translate=0.2, scale=0.9, mixup=0.15, paste_in=0.0),
}


def main() -> None:
    """Draw the images that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream", choices=tuple(HYP))
    parser.add_argument("list", metavar="LIST", type=Path, help="train2017.txt")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--imgsz", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()

    from quantization.upstream.checkout import enter_checkout

    enter_checkout(options.upstream, Path.cwd())
    import cv2
    import numpy as np
    import torch

    if options.upstream == "yolov5":
        from utils.dataloaders import LoadImagesAndLabels
    else:
        from utils.datasets import LoadImagesAndLabels
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(options.seed)
    shutil.rmtree(options.out, ignore_errors=True)
    images = options.out / "images"
    images.mkdir(parents=True)
    source = options.out / "source.txt"  # upstream keeps its cache beside the list
    lines = options.list.read_text().split()
    source.write_text("".join(f"{os.path.normpath(options.list.resolve().parent / line)}\n" for line in lines))
    loader = LoadImagesAndLabels(str(source), options.imgsz, augment=True, hyp=HYP[options.upstream])
    loader.albumentations = lambda image, labels: (image, labels)  # used by yolov5 where that package is installed
    names = []
    for number, index in enumerate(np.random.permutation(len(loader))[: options.count]):
        image = loader[int(index)][0].numpy()  # (3, IMGSZ, IMGSZ) uint8, RGB
        names.append(f"./images/{number:06d}.png\n")
        if not cv2.imwrite(str(images / f"{number:06d}.png"), image[::-1].transpose(1, 2, 0)):
            raise OSError(f"{images} cannot be written to")
    (options.out / "train2017.txt").write_text("".join(names))


if __name__ == "__main__":
    main()
