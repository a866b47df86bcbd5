"""Activation ranges by what they do to the detections: ``--calib-method sqnr``.

A tensor's own error says little of the detections': most values belong to background, and those that a narrow range
cuts off belong to objects. To first order, as in sensitivity/first_order.py, quantizing a tensor x changes the network's outputs by
J delta, and E[(v^T J delta)^2] = |J delta|^2 for v ~ N(0, 1) on the outputs. Since delta_i depends on x_i and the range
only,

    v^T J delta = sum over bins of delta(bin) * (sum over the values x_i in the bin of (v^T J)_i)

so that one backward pass, kept as a histogram of gradients, measures every candidate range. The sum comes before the
square: values that are all cut off alike weigh more than roundings that cancel out.
"""

from __future__ import annotations

import logging
from typing import Any, Collection, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.progress_bar import progress_bar
from quantization.quantizers.pass_memo import TensorMemo
from quantization.ranges.levels import BITS, highest_level
from quantization.upstream.outputs import LEAST_ENERGY, Outputs, random_directions

LOG = logging.getLogger("quantization")
BINS = 4096  # 32 per level of 8 bits at the widest range
BINS_PER_LEVEL = 2  # at the narrowest range that is tried
IMAGES = 256  # about as many as calibration takes; of 64, the best range for boxes was missed on one network of two
LEAST_SIDE = 320  # of halved images, pixels; those that would be smaller stay as they are
CHUNK = 4  # images per backward pass
# what the energy of an error in the boxes costs of mAP@0.5:0.95, in units of that of the scores: about 300 on a trained
# yolov5s and 50 on a yolov7-tiny (docs/accuracy-history.md)
BOX_WEIGHT = 100.0
PIECE = 2**15  # values counted at once on a CPU: what is made of them stays in its cache
ROWS = 32  # histograms that get memory at once
CANDIDATES = 256  # ranges; of 8 bits, each 1.1 % wider than the one before


class GradientHistogram:
    """Sums of gradients by the magnitude of the value that each belongs to, for each image.

    Args:
        reach: the largest magnitude.
        bits: width of the integers.
    """

    def __init__(self, reach: float, bits: int = BITS) -> None:
        self.range, self.bits = reach, bits
        self.rows: list[Tensor] = []  # (BINS,) float64, one per image
        self._free: list[Tensor] = []  # rows that have memory already

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Count values and their gradients, (B, ...) each. Values beyond the range go to the last bin."""
        for image, slopes in zip(x.flatten(1), gradient.flatten(1)):
            row = self._new_row(x.device)
            piece = PIECE if x.device.type == "cpu" else len(image)
            for values, parts in zip(image.split(piece), slopes.split(piece)):
                bins = (values.abs() * (BINS / self.range)).long().clamp_(max=BINS - 1)
                # the error is odd: that of -x is minus that of x
                row.scatter_add_(0, bins, (parts * values.sign()).double())
            self.rows.append(row)

    def _new_row(self, device: torch.device) -> Tensor:
        """A row of zeros. Single ones, between the activations of a pass, would leave holes in the memory."""
        if not self._free:
            self._free = list(torch.zeros(ROWS, BINS, dtype=torch.float64, device=device))
        return self._free.pop()

    def errors(self, amax: Tensor) -> Tensor:
        """v^T J delta at each candidate range: (K,) float64 to (K, images)."""
        centres = (torch.arange(BINS, dtype=torch.float64, device=amax.device) + 0.5) * (self.range / BINS)
        highest = highest_level(self.bits)
        scale = amax[:, None] / highest
        delta = (centres / scale).round_().clamp_(max=highest).mul_(scale).sub_(centres)  # (K, BINS)
        return delta @ torch.stack(self.rows, 1)

    def energy(self, amax: float) -> float:
        """The error energy in the detections, relative to their own, at one range."""
        candidate = torch.tensor([amax], dtype=torch.float64, device=self.rows[0].device)
        return float(self.errors(candidate).square().mean().clamp(min=LEAST_ENERGY))

    def plus(self, others: Sequence[GradientHistogram]) -> GradientHistogram:
        """Of all readers of one tensor, where each histogram is that of some of them."""
        if not others:
            return self
        total = GradientHistogram(self.range, self.bits)
        total.rows = [torch.stack(rows).sum(0) for rows in zip(self.rows, *(other.rows for other in others))]
        return total

    def reaches_outputs(self) -> bool:
        """Whether the tensor reaches the outputs."""
        return any(bool(row.any()) for row in self.rows)


class Probe(torch.autograd.Function):
    """Passes a tensor through; the backward pass counts its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, root: Tensor, histogram: GradientHistogram) -> Tensor:
        """``x``, as if it depended on ``root``, which gets no gradient: nothing before the first probe needs any."""
        ctx.histogram = histogram
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradient, counted."""
        ctx.histogram.add(ctx.saved_tensors[0], gradient)
        return gradient if ctx.needs_input_grad[0] else None, None, None


class GroupProbe(nn.Module):
    """Stands in for the quantizer of a group: probes each distinct tensor once, for all its readers together.

    Args:
        reaches: the largest magnitude of each distinct tensor, in the order of the forward pass; 0: it is not probed.
        bits: width of the quantizer.
    """

    def __init__(self, reaches: Sequence[float], bits: int = BITS) -> None:
        super().__init__()
        self.histograms = [GradientHistogram(reach, bits) if reach else None for reach in reaches]
        self._seen = TensorMemo()  # what the readers of a tensor got
        self.root = torch.zeros((), requires_grad=True)  # what ``fill`` differentiates by

    def forward(self, x: Tensor) -> Tensor:
        """``x``, whose gradient is counted."""
        probed = self._seen.find(x)
        if probed is not None:
            return probed
        histogram = self.histograms[len(self._seen)]
        probed = x if histogram is None else Probe.apply(x, self.root, histogram)
        self._seen.add(x, probed)
        return probed

    def found(self) -> list[GradientHistogram | None]:
        """The histograms of the tensors that reach the outputs, None for the others."""
        return [
            histogram if histogram is not None and histogram.reaches_outputs() else None
            for histogram in self.histograms
        ]

    def forget(self) -> None:
        """Call after each pass."""
        self._seen.clear()


def halved(images: Tensor, stride: int) -> Tensor:
    """Large images at half their size, for gradients: a backward pass then takes a quarter of its time and memory.

    All objects stay, and whole; fewer images, or parts of them, were no better (docs/speed.md).

    Args:
        images: (B, 3, H, W).
        stride: what their sides are multiples of, and stay so.

    Returns:
        (B, 3, about H / 2, about W / 2), means of pixels; the images themselves where a side would fall below ``LEAST_SIDE``.
    """
    sides = [-(-side // (2 * stride)) * stride for side in images.shape[2:]]
    return images if min(sides) < LEAST_SIDE else F.interpolate(images, size=sides, mode="area")


def fill(
    probes: Collection[GroupProbe],
    outputs: Outputs,
    batches: Iterable[Tensor],
    images: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Fill the histograms of ``probes`` from the first ``IMAGES`` images; many processes draw the directions of one.

    Args:
        probes: the stand-ins of a model's quantizers.
        outputs: gives the output maps of the model, which is in eval mode, each (B, ...).
        batches: images (B, 3, H, W), floats in 0..1 on the model's device; of many processes, each one's own.
        images: how many there are, for the progress bar and the log.
        seed: of the directions.

    Returns:
        The rank that took each image.

    Raises:
        UserError: an output is NaN or infinite.
    """
    order: list[int] = []
    directions = Directions(seed)
    bar = progress_bar(total=images and min(images, IMAGES), title="Gradients", unit="image")
    LOG.info("Gradients of the detections for %s images", bar.total)
    with torch.enable_grad(), bar:
        for batch, lengths in RANKS.rounds(batches):
            for rank, length in enumerate(lengths):
                taken = min(length, IMAGES - len(order))
                order += [rank] * taken
                if rank != RANKS.rank or batch is None:
                    directions.skip(taken)
                elif taken:
                    fill_from(probes, outputs, batch[:taken], directions)
            bar.update(len(order) - bar.n)
            if len(order) >= IMAGES:
                break
    return order


def fill_from(probes: Collection[GroupProbe], outputs: Outputs, images: Tensor, directions: Directions) -> None:
    """Fill the histograms of ``probes`` from a batch; see ``fill``."""
    roots = [probe.root for probe in probes]
    for chunk in images.split(CHUNK):
        maps = finite([part.float() for part in outputs(chunk)])
        vectors = directions.draw(maps)
        reached = [number for number, part in enumerate(maps) if part.requires_grad]  # by a probe, at least one
        if reached:
            ends, starts = [maps[number] for number in reached], [vectors[number] for number in reached]
            torch.autograd.grad(ends, roots, starts, allow_unused=True)
        for group in probes:
            group.forget()


class Directions:
    """Random directions for each pass, the same whoever makes the passes before it.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._skipped: list[int] = []  # images in each pass of other processes since this one's last

    def skip(self, images: int) -> None:
        """Another process takes the next images, in passes of ``CHUNK``."""
        self._skipped += [min(CHUNK, images - first) for first in range(0, images, CHUNK)]

    def draw(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Directions for these output maps."""
        if self._generator is None:
            self._generator = torch.Generator(device=maps[0].device).manual_seed(self._seed)
        for images in self._skipped:
            for part in maps:  # the numbers that ``random_directions`` takes for a pass
                torch.randn((images, *part.shape[1:]), generator=self._generator, device=part.device)
        self._skipped = []
        return random_directions(maps, self._generator)


def finite(maps: list[Tensor]) -> list[Tensor]:
    """Output maps as they are.

    Raises:
        UserError: one holds NaN or infinity.
    """
    if not all(bool(torch.isfinite(part).all()) for part in maps):
        raise UserError("the detections of a calibration image are NaN or infinite: check the checkpoint")
    return maps


def best_amax(histograms: Sequence[GradientHistogram]) -> float:
    """The range with the smallest error in the detections when all these tensors, of one width, share it."""
    reach = max(histogram.range for histogram in histograms)
    levels = highest_level(histograms[0].bits) + 1
    narrowest = BINS_PER_LEVEL * levels / BINS  # relative to the largest value; 1/16 for 8 bits
    exponents = torch.linspace(1, 0, CANDIDATES, dtype=torch.float64, device=histograms[0].rows[0].device)
    candidates = reach * narrowest**exponents
    errors = torch.stack([histogram.errors(candidates) for histogram in histograms]).sum(0)  # (K, images)
    return float(candidates[errors.square().mean(1).argmin()])
