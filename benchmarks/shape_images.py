"""One image of textured shapes, with its labels; the data set of them is shapes.py."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from shape_classes import background, outline, texture

SPLITS = ("train2017", "val2017")
FIRST_ID = {"train2017": 1, "val2017": 500001}  # numbers of the files: the splits share none
ASPECT_RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9)  # width / height
PLACEMENT_ATTEMPTS = 8
JPEG_QUALITY = 92


class Settings(NamedTuple):
    """What every image of a data set has in common."""

    out: Path
    size: int  # long side in pixels
    classes: int
    objects: int  # mean number of objects per image
    seed: int
    difficulty: float  # 0 (easy) to 1: clutter, noise, rotation, occlusion, small objects, low contrast
    largest: float = 0.5  # diameter of the largest objects, of the long side


class Labelled(NamedTuple):
    """One object: class index, visible box (x, y, w, h) in pixels, visible pixels."""

    cls: int
    box: tuple[int, int, int, int]
    area: int


def two_colours(rng: np.random.Generator, behind: np.ndarray, difficulty: float) -> tuple[np.ndarray, np.ndarray]:
    """A texture's two colours: apart from each other, and the first one apart from the mean colour behind it."""
    apart = 110 - 50 * difficulty
    candidates = rng.uniform(0, 255, (20, 2, 3)).astype(np.float32)
    contrast = np.minimum(
        np.abs(candidates[:, 0] - behind).mean(axis=1) / 0.8, np.abs(candidates[:, 0] - candidates[:, 1]).mean(axis=1)
    )
    enough = np.flatnonzero(contrast >= apart)
    first, second = candidates[enough[0] if len(enough) else contrast.argmax()]
    return first, second


class Canvas:
    """An image under construction, and which object each pixel shows (0: none)."""

    def __init__(self, rng: np.random.Generator, settings: Settings) -> None:
        ratio = float(rng.choice(ASPECT_RATIOS))
        self.height = round(settings.size / max(ratio, 1.0))
        self.width = round(settings.size * min(ratio, 1.0))
        self.rng = rng
        self.settings = settings
        self.min_visible = 0.85 - 0.4 * settings.difficulty  # fraction of its pixels that each object keeps
        self.image = background(rng, self.height, self.width, settings.difficulty)
        self.owner = np.zeros((self.height, self.width), np.int16)
        self.classes: list[int] = []
        self.pixels: list[int] = [0]  # of each whole object, by its number in `owner`

    def add(self) -> None:
        """Draw one object where it leaves every other one visible enough; give up after some attempts."""
        rng, settings = self.rng, self.settings
        cls = int(rng.integers(settings.classes))
        smallest = 0.12 - 0.07 * settings.difficulty
        diameter = settings.size * smallest * (settings.largest / smallest) ** (rng.random() ** 1.5)  # skewed to small
        diameter = float(np.clip(diameter, 8, 0.9 * min(self.height, self.width)))
        points, hole = outline(cls, diameter / 2, rng.uniform(-90, 90) * settings.difficulty, rng)
        side = int(np.ceil(np.abs(points).max())) * 2 + 3
        alpha = np.zeros((side, side), np.uint8)
        shift = 4  # fixed-point bits of cv2's subpixel coordinates
        cv2.fillPoly(alpha, [np.rint((points + side / 2) * 2**shift).astype(np.int32)], 255, cv2.LINE_AA, shift)
        if hole:
            centre = round(side / 2 * 2**shift)
            cv2.circle(alpha, (centre, centre), round(hole * 2**shift), 0, -1, cv2.LINE_AA, shift)
        solid = alpha > 127
        whole = int(solid.sum())

        for _ in range(PLACEMENT_ATTEMPTS):
            left = int(rng.integers(-side // 8, max(self.width - side + side // 8, 0) + 1))
            top = int(rng.integers(-side // 8, max(self.height - side + side // 8, 0) + 1))
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, self.width), min(top + side, self.height)
            here = np.s_[y0:y1, x0:x1]
            part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
            if solid[part].sum() >= self.min_visible * whole and self._leaves_others_visible(here, solid[part]):
                break
        else:
            return

        behind = np.array(cv2.mean(self.image[here])[:3], np.float32)
        first, second = two_colours(rng, behind, settings.difficulty)
        blend = texture(cls, side, diameter, rng)[part][..., None]  # (h, w, 1), 0: first colour, 1: second
        shade = np.float32(rng.uniform(-18, 18)) * np.linspace(-1, 1, side, dtype=np.float32)  # light from one side
        paint = first + (second - first) * blend + shade[None, part[1], None]
        opacity = alpha[part][..., None] * np.float32(1 / 255)
        self.image[here] += (paint - self.image[here]) * opacity
        self.pixels.append(whole)
        self.classes.append(cls)
        self.owner[here][solid[part]] = len(self.classes)

    def _leaves_others_visible(self, here: tuple[slice, slice], solid: np.ndarray) -> bool:
        covered = np.bincount(self.owner[here][solid], minlength=len(self.pixels))
        for number in np.flatnonzero(covered[1:]) + 1:
            left_over = np.count_nonzero(self.owner == number) - covered[number]
            if left_over < self.min_visible * self.pixels[number]:
                return False
        return True

    def finish(self) -> tuple[np.ndarray, list[Labelled]]:
        """Add sensor noise. Returns the uint8 BGR image and its labels."""
        sigma = 1 + 7 * self.settings.difficulty
        self.image += self.rng.standard_normal((self.height, self.width, 1), dtype=np.float32) * np.float32(sigma)
        labels = []
        for number, cls in enumerate(self.classes, start=1):
            visible = (self.owner == number).astype(np.uint8)
            x, y, width, height = cv2.boundingRect(visible)
            labels.append(Labelled(cls, (x, y, width, height), cv2.countNonZero(visible)))
        return np.clip(self.image, 0, 255, out=self.image).astype(np.uint8), labels


def draw_image(settings: Settings, split: str, index: int) -> tuple[dict[str, object], list[Labelled]]:
    """Draw and write one image and its label file.

    Returns:
        The image's entry in COCO's ``images`` list, and its labels.
    """
    cv2.setNumThreads(1)  # the pool has one process per core
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])  # nothing else decides on the image
    canvas = Canvas(rng, settings)
    for _ in range(max(1, rng.poisson(settings.objects))):
        canvas.add()
    image, labels = canvas.finish()
    number = FIRST_ID[split] + index
    name = f"{number:012d}"
    height, width = image.shape[:2]
    path = settings.out / "images" / split / f"{name}.jpg"
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise OSError(f"{path} cannot be written")
    lines = []
    for cls, (x, y, w, h), _ in labels:
        lines.append(f"{cls} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n")
    (settings.out / "labels" / split / f"{name}.txt").write_text("".join(lines))
    return {"id": number, "file_name": f"{name}.jpg", "width": width, "height": height}, labels
