"""What evaluation has to know of a network, and the data set and evaluator for it, checked before any work. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantization.data.checks import CheckedDataset, Needs, check_dataset
from quantization.data.dataset import Dataset, open_dataset
from quantization.data.images import Loader
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.evaluation.categories import grouping_category, is_single_class
from quantization.evaluation.coco import Evaluator
from quantization.evaluation.coco_json import read_coco
from quantization.evaluation.detecting import Thresholds
from quantization.evaluation.ground_truth import GroundTruth
from quantization.options import DataOptions


@dataclass(frozen=True)
class Network:
    """Facts of a network.

    Attributes:
        upstream: "yolov5" or "yolov7", whose decisions on images and labels count.
        classes: number of classes.
        names: what it calls them; empty if it does not say.
        size: height and width of its input, pixels.
        iou: upstream's own threshold of non-maximum suppression.
        objectness_only: with one class, the objectness is the score.
        stride: of a torch model, which takes rectangles; None: it takes ``size`` alone.
    """

    upstream: str
    classes: int
    names: tuple[str, ...]
    size: tuple[int, int]
    iou: float
    objectness_only: bool
    stride: int | None = None


@dataclass(frozen=True)
class FittingDataset(CheckedDataset):
    """A checked data set whose annotations fit a network.

    Attributes:
        truth: the annotations of its validation images, if they had to be read already.
    """

    truth: GroundTruth | None = None


def data_classes(options: DataOptions, source: str) -> int:
    """Number of classes of the data set, for a network whose file does not tell its own.

    Args:
        options: which data set.
        source: the network's file, for messages.

    Raises:
        UserError: the data set does not tell it either.
    """
    dataset = open_dataset(options.cocodir, options.data)
    count = dataset.class_count or len(dataset.names)
    if not count and dataset.annotations is not None:
        content = read_coco(dataset.annotations)
        used = {box.category for image in content.images for box in content.boxes(image.key)}
        # whether the network has a class for a category that only groups the others, nothing tells
        count = 0 if grouping_category(content.categories, used) else len(content.categories)
    if not count:
        raise UserError(
            f"{source} does not tell its number of classes, nor does {dataset.source}: name the data set by a data.yaml "
            "with the network's classes (--data)"
        )
    return count


def open_checked(
    options: DataOptions, network: Network, train: bool = False, train_labels: bool = False, val: bool = True
) -> FittingDataset:
    """The data set of the options, see ``fit_dataset``."""
    return fit_dataset(open_dataset(options.cocodir, options.data), network, train, train_labels, val)


def fit_dataset(
    dataset: Dataset, network: Network, train: bool = False, train_labels: bool = False, val: bool = True
) -> FittingDataset:
    """A data set without what upstream leaves out, and with annotations that fit the network.

    Args:
        dataset: of ``open_dataset``.
        network: that will be calibrated, trained or evaluated on it.
        train: whether training images are read.
        train_labels: whether their labels are.
        val: whether validation images are.

    Raises:
        UserError: something in the data set has to change.
    """
    single_cls = is_single_class(network.classes, network.names)
    needs = Needs(network.upstream, network.classes, single_cls, train, train_labels, val)
    # first the images: those that upstream leaves out must not make an annotation JSON unfit
    checked = check_dataset(dataset, needs)
    dataset = checked.dataset
    if not val or dataset.annotations is None:
        return FittingDataset(dataset, checked.train, checked.val)
    truth = GroundTruth(dataset, network.classes, network.names)
    if not truth.uses_labels:
        return FittingDataset(dataset, checked.train, checked.val, truth)
    # it has said why the JSON does not fit; the labels then decide which images stay
    labelled = check_dataset(replace(dataset, annotations=None), replace(needs, train=False))
    return FittingDataset(labelled.dataset, checked.train, labelled.val)


def make_evaluator(
    options: DataOptions, network: Network, dataset: Dataset, truth: GroundTruth | None = None
) -> Evaluator:
    """An evaluator of the validation images.

    Args:
        options: batches and thresholds.
        network: torch models are evaluated in rectangles, unless the options ask for squares.
        dataset: checked.
        truth: the annotations of its validation images; None: they are read.

    Raises:
        UserError: the annotations do not fit.
    """
    stride = None if options.square else network.stride
    turn = (RANKS.rank, RANKS.size)
    loader = Loader(dataset.val, network.size, options.batch_size, options.workers, stride, turn=turn)
    iou = network.iou if options.nmsthres is None else options.nmsthres
    thresholds = Thresholds(options.confidence, iou, network.objectness_only)
    return Evaluator(truth or GroundTruth(dataset, network.classes, network.names), loader, thresholds)
