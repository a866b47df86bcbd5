"""Images from a COCO-style data set, letterboxed as at inference, in batches. numpy and OpenCV only, no torch."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator, Sequence

import cv2
import numpy as np

from quantization.errors import UserError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
GREY = (114, 114, 114)  # the border's colour in both upstreams


@dataclass
class Dataset:
    """Where a data set's parts lie.

    Attributes:
        train: image files for calibration and finetuning.
        val: image files for evaluation.
        annotations: COCO JSON of the validation images; None: their YOLO label files are read.
        names: class names; empty if only the annotations tell.
        source: what the user named, for messages.
    """

    train: list[str]
    val: list[str]
    annotations: Path | None
    names: list[str]
    source: str

    def with_val(self, files: list[str]) -> Dataset:
        """A copy with other validation images."""
        return replace(self, val=files)


@dataclass
class Batch:
    """Letterboxed images.

    Attributes:
        images: (B, 3, H, W) uint8, RGB.
        files: their paths.
        gains: network pixels an image pixel.
        pads: border left and above, network pixels.
        shapes: height and width of the image files.
        flips: whether each was flipped left to right.
    """

    images: np.ndarray
    files: list[str]
    gains: list[float] = field(default_factory=list)
    pads: list[tuple[float, float]] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    flips: list[bool] = field(default_factory=list)


def open_dataset(cocodir: str | None = None, data: str | None = None) -> Dataset:
    """Find the images and annotations.

    Args:
        cocodir: folder with train2017.txt and val2017.txt (or images/train2017, images/val2017) and
            annotations/instances_val2017.json or labels/val2017.
        data: a YOLO data.yaml with train, val and names.

    Raises:
        UserError: neither or both given, something is missing, or no image is found.
    """
    if (cocodir is None) == (data is None):
        raise UserError("name the data set with either --cocodir DIR or --data data.yaml")
    if data is not None:
        return _open_yaml(Path(data))
    folder = Path(str(cocodir))
    if not folder.is_dir():
        raise UserError(f"--cocodir {folder} is no folder: name the one that holds images/ and val2017.txt")
    parts = {}
    for part in ("train2017", "val2017"):
        listing, images = folder / f"{part}.txt", folder / "images" / part
        if not listing.is_file() and not images.is_dir():
            raise UserError(f"--cocodir {folder} has neither {part}.txt nor images/{part}")
        parts[part] = image_files(listing if listing.is_file() else images)
    annotations = folder / "annotations" / "instances_val2017.json"
    return Dataset(
        parts["train2017"], parts["val2017"], annotations if annotations.is_file() else None, [], f"--cocodir {folder}"
    )


def _open_yaml(file: Path) -> Dataset:
    import yaml

    if not file.is_file():
        raise UserError(f"--data {file} does not exist")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--data {file} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "train" not in content or "val" not in content:
        raise UserError(f"--data {file} lacks train: or val:, the lists of images")
    parts = {part: _yaml_images(file, content, part) for part in ("train", "val")}
    names = content.get("names") or []
    names = [names[key] for key in sorted(names)] if isinstance(names, dict) else list(names)
    if names and "nc" in content and int(content["nc"]) != len(names):
        raise UserError(f"--data {file} says nc: {content['nc']} but lists {len(names)} names: make them agree")
    root = Path(str(content.get("path") or file.parent))
    candidates = (base / "annotations" / "instances_val2017.json" for base in (root, file.parent / root))
    annotations = next((candidate for candidate in candidates if candidate.is_file()), None)
    return Dataset(parts["train"], parts["val"], annotations, [str(name) for name in names], f"--data {file}")


def _yaml_images(file: Path, content: dict[str, Any], part: str) -> list[str]:
    """Images of one split; relative paths are tried from ``path``, the current folder and the yaml's folder."""
    bases = [Path("."), file.parent]
    if content.get("path"):
        bases = [base / str(content["path"]) for base in bases] + bases
    files: list[str] = []
    for entry in content[part] if isinstance(content[part], list) else [content[part]]:
        found = next((base / str(entry) for base in bases if (base / str(entry)).exists()), None)
        if found is None:
            raise UserError(f"--data {file}: {part}: {entry} exists neither below path: nor beside the yaml")
        files += image_files(found)
    return files


def image_files(source: str | Path) -> list[str]:
    """Image files of a folder (with its subfolders), of a .txt list, or of the val split of a data.yaml.

    Raises:
        UserError: the source is missing or holds no image, or a listed image does not exist.
    """
    source = Path(source)
    if source.suffix in (".yaml", ".yml"):
        return open_dataset(data=str(source)).val
    if source.is_dir():
        files = sorted(str(file) for file in source.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    elif source.is_file():
        lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines()]
        files = [_listed(source.parent, line) for line in lines if line]
    else:
        raise UserError(f"{source} does not exist: name a folder of images, a .txt list or a data.yaml")
    if not files:
        raise UserError(f"{source} lists no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    missing = next((file for file in files if not Path(file).is_file()), None)
    if missing is not None:
        raise UserError(f"{source} lists {missing}, which does not exist")
    return files


def _listed(folder: Path, line: str) -> str:
    """A line of a list: absolute, or relative to the list's folder (as upstream reads "./...") or the current one."""
    beside = folder / line
    return line if not beside.exists() and Path(line).exists() else str(beside)


def image_shape(file: str) -> tuple[int, int]:
    """Height and width from the file's header, EXIF rotation applied as OpenCV does.

    Raises:
        UserError: the file is no image.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            width, height = image.size
            rotated = image.getexif().get(274, 1) in (5, 6, 7, 8)  # 274: Orientation
    except OSError as error:
        raise UserError(f"{file} is no readable image: remove it from the list") from error
    return (width, height) if rotated else (height, width)


def letterbox(
    image: np.ndarray, size: tuple[int, int], long_side: int | None = None
) -> tuple[np.ndarray, float, tuple[float, float]]:
    """Scale an image and centre it on grey, as both upstreams do in evaluation.

    Args:
        image: (h, w, 3) uint8.
        size: height and width of the result.
        long_side: scale the image's longer side to this many pixels; None: as large as fits into ``size``.

    Returns:
        The (H, W, 3) image, network pixels an image pixel, and the border left and above.
    """
    height, width = image.shape[:2]
    ratio = long_side / max(height, width) if long_side else min(size[0] / height, size[1] / width)
    if ratio != 1:
        scaled = (max(1, int(width * ratio)), max(1, int(height * ratio)))
        image = cv2.resize(image, scaled, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    gain = image.shape[0] / height  # of the whole pixels, as upstream reports it
    pad = ((size[1] - image.shape[1]) / 2, (size[0] - image.shape[0]) / 2)
    left, top = (round(value - 0.1) for value in pad)
    image = cv2.copyMakeBorder(
        image,
        top,
        size[0] - image.shape[0] - top,
        left,
        size[1] - image.shape[1] - left,
        cv2.BORDER_CONSTANT,
        value=GREY,
    )
    return image, gain, pad


def rect_shapes(
    shapes: Sequence[tuple[int, int]], batch_size: int, size: int, stride: int, pad: float = 0.5
) -> tuple[list[int], list[tuple[int, int]]]:
    """Order images by aspect ratio and give each batch the smallest shape, as upstream's ``rect=True`` does.

    Args:
        shapes: height and width of each image.
        batch_size: images a batch.
        size: longest side, pixels.
        stride: the shapes are multiples of it.
        pad: extra, in strides.

    Returns:
        Image indices in order, and (H, W) of each batch.
    """
    aspect = np.array([height / width for height, width in shapes])
    order = aspect.argsort(kind="stable")
    result = []
    for start in range(0, len(order), batch_size):
        ratios = aspect[order[start : start + batch_size]]
        shape = [1.0, 1.0]
        if ratios.max() < 1:
            shape = [float(ratios.max()), 1.0]
        elif ratios.min() > 1:
            shape = [1.0, 1.0 / float(ratios.min())]
        height, width = (int(np.ceil(side * size / stride + pad)) * stride for side in shape)
        result.append((height, width))
    return [int(index) for index in order], result


@dataclass
class Loader:
    """Batches of letterboxed images; iterate as often as you like.

    Attributes:
        files: the images.
        size: height and width.
        batch_size: images a batch; the last one may be smaller.
        workers: threads that read images.
        rect_stride: not None: evaluate in rectangles of multiples of this stride, as upstream does; None: in ``size``.
        shuffle_seed: not None: a new order in every pass and random left-right flips, from this seed on.
        passes: how many passes have begun; the order of a pass follows from ``shuffle_seed`` and this number.
        skip: batches to leave out of the next pass, which a run that was interrupted has had.
    """

    files: list[str]
    size: tuple[int, int]
    batch_size: int = 8
    workers: int = 4
    rect_stride: int | None = None
    shuffle_seed: int | None = None
    passes: int = 0
    skip: int = 0

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        files, sizes, flips = list(self.files), [self.size] * len(self), [False] * len(self.files)
        long_side = max(self.size) if self.rect_stride is not None else None
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            if self.rect_stride is not None:
                order, sizes = rect_shapes(
                    list(pool.map(image_shape, files)), self.batch_size, max(self.size), self.rect_stride
                )
                files = [files[index] for index in order]
            if self.shuffle_seed is not None:
                generator = random.Random(self.shuffle_seed + self.passes)
                self.passes += 1
                generator.shuffle(files)
                flips = [generator.random() < 0.5 for _ in files]
            first, self.skip = self.skip, 0
            files, flips, sizes = (
                files[first * self.batch_size :],
                flips[first * self.batch_size :],
                sizes[first:],
            )
            starts = range(0, len(files), self.batch_size)
            pending: list[Any] = []
            for number, start in enumerate(starts):
                part = slice(start, start + self.batch_size)
                pending.append(
                    [
                        pool.submit(read, file, sizes[number], long_side, flip)
                        for file, flip in zip(files[part], flips[part])
                    ]
                )
                if len(pending) > 2:  # read two batches ahead
                    yield gather(files, self.batch_size, number - 2, pending.pop(0))
            for back, futures in zip(range(len(pending), 0, -1), pending):
                yield gather(files, self.batch_size, len(starts) - back, futures)


def gather(files: list[str], batch_size: int, number: int, futures: list[Any]) -> Batch:
    """Make batch ``number`` of its images."""
    parts = [future.result() for future in futures]
    images = np.ascontiguousarray(np.stack([part[0] for part in parts])[..., ::-1].transpose(0, 3, 1, 2))
    return Batch(
        images,
        files[number * batch_size : number * batch_size + len(parts)],
        *(list(column) for column in list(zip(*parts))[1:]),
    )


def read(
    file: str, size: tuple[int, int], long_side: int | None = None, flip: bool = False
) -> tuple[np.ndarray, float, tuple[float, float], tuple[int, int], bool]:
    """Read and letterbox one image: (H, W, 3) BGR, gain, pad, (height, width) of the file, whether it is flipped.

    Raises:
        UserError: OpenCV cannot read it.
    """
    image = cv2.imread(file)
    if image is None:
        raise UserError(f"{file} is no readable image: remove it from the list")
    shape = (int(image.shape[0]), int(image.shape[1]))
    boxed, gain, pad = letterbox(image[:, ::-1] if flip else image, size, long_side)
    return boxed, gain, pad, shape, flip


def load_batches(files: Sequence[str], size: tuple[int, int], batch_size: int) -> Iterator[np.ndarray]:
    """Float32 batches (B, 3, H, W) in 0..1 of square-letterboxed images, for engines and their calibration."""
    for batch in Loader(list(files), size, batch_size):
        yield batch.images.astype(np.float32) / 255
