"""What benchmarks/accuracy.py runs on: drawn data, upstream's mosaics of them, and checkouts."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from accuracy_jobs import Workshop, read_json, write_json
from bundle import BUNDLE
from command_lines import flagged

from checkouts import install_bundle, make_checkout
from shapes import draw_dataset

if TYPE_CHECKING:
    from accuracy_plan import Experiment

TEST_SEEDS = 1000  # the test images of seed 3 are drawn with seed 1003


def link_dataset(source: Path, out: Path, train: Path) -> None:
    """A COCO folder with the images and annotations of ``source`` and another (or the same) training list."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in ("images", "labels", "annotations"):
        (out / name).symlink_to(source / name, target_is_directory=True)
    for name, listing in (("train2017.txt", train), ("val2017.txt", source / "val2017.txt")):
        lines = listing.read_text().split()
        if listing.parent != source:
            lines = [os.path.normpath(listing.parent / line) for line in lines]
        (out / name).write_text("".join(f"{line}\n" for line in lines))


def make_data(options: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Draw every seed's data: to train on (with images that QAT chooses its best epoch by), and to test on."""
    done_file = options.work / "data" / "done.json"
    for seed in seeds:
        for name, train, val, drawn_with in (
            (str(seed), options.images, options.val_images, seed),
            (f"{seed}-test", 1, options.test_images, TEST_SEEDS + seed),
        ):
            done: dict[str, str] = read_json(done_file, {})
            folder = options.work / "data" / name
            if name in done and folder.is_dir():
                continue
            shutil.rmtree(folder, ignore_errors=True)
            draw_dataset(
                folder,
                train,
                val,
                options.draw_size,
                options.classes,
                options.objects,
                drawn_with,
                options.difficulty,
                largest=options.largest,
            )
            write_json(done_file, {**done, name: str(folder)})
            print(f"drawn: {folder}", flush=True)


def make_checkouts(options: argparse.Namespace, experiments: Sequence[Experiment]) -> None:
    """A checkout of every upstream needed, with this bundle copied into it as it is now."""
    for upstream, checkout in {experiment.upstream: experiment.checkout for experiment in experiments}.items():
        shutil.rmtree(checkout, ignore_errors=True)
        make_checkout(upstream, checkout)
        install_bundle(checkout, BUNDLE)


def make_mosaics(experiments: Sequence[Experiment], shop: Workshop) -> list[str]:
    """Augmented images of each upstream and seed, and the data folder that has them to calibrate on.

    Returns:
        Names of those that failed.
    """

    def draw(experiment: Experiment) -> None:
        options, folder = experiment.options, experiment.mosaics
        drawn = folder.with_name(folder.name + "-images")
        program = [sys.executable, str(BUNDLE / "benchmarks" / "accuracy_mosaics.py"), experiment.upstream]
        flags = {"--imgsz": options.imgsz, "--count": options.mosaic_images, "--seed": experiment.seed}
        words = [*program, str(experiment.data / "train2017.txt"), str(drawn), *flagged(flags)]
        shop.command(words, experiment.checkout, folder.with_name(folder.name + ".log"))
        link_dataset(experiment.data, folder, drawn / "train2017.txt")

    missing = {
        experiment.mosaics: experiment
        for experiment in experiments
        if not (experiment.mosaics / "val2017.txt").is_file()
    }
    return shop.side_by_side({path.name: functools.partial(draw, experiment) for path, experiment in missing.items()})
