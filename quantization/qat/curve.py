"""A picture of a QAT run: mAP, loss and learning rate of every epoch."""

from __future__ import annotations

import json

from quantization.files import atomic_write


def plot(summary: str, picture: str) -> None:
    """Draw the epochs of a summary.

    Args:
        summary: JSON of the quantize command.
        picture: .png or .svg.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(summary, encoding="utf-8") as file:
        figures = json.load(file)["figures"]
    epochs = figures["qat"]["epochs"]
    numbers = [entry["epoch"] for entry in epochs]
    figure, (accuracy, loss) = plt.subplots(2, 1, sharex=True, figsize=(7, 5.5))
    maps = [100 * entry["map"] for entry in epochs]
    accuracy.plot(numbers, maps, marker="o", color="#c44e52", label="QAT")
    best = max(range(len(maps)), key=maps.__getitem__)
    accuracy.plot(
        numbers[best],
        maps[best],
        marker="o",
        markersize=11,
        fillstyle="none",
        color="#c44e52",
        linestyle="",
        label=f"saved: epoch {numbers[best]}, {maps[best]:.2f}",
    )
    for key, label, colour in (("float", "float", "#4c72b0"), ("ptq", "PTQ", "#8c8c8c")):
        if key in figures:
            value = 100 * figures[key]["map"]
            accuracy.axhline(value, color=colour, linestyle="--", label=f"{label}: {value:.2f}")
    accuracy.set_ylabel("mAP@0.5:0.95, points")
    accuracy.legend(fontsize=8)
    loss.plot(numbers, [entry["loss"] for entry in epochs], marker="o", color="#8c8c8c")
    loss.set_yscale("log")
    loss.set_ylabel("mean loss of the epoch")
    loss.set_xlabel("epoch")
    loss.xaxis.get_major_locator().set_params(integer=True)
    rate = loss.twinx()
    rate.plot(numbers, [entry["lr"] for entry in epochs], color="#4c72b0", linestyle=":")
    rate.set_ylabel("learning rate at its end (dotted)", color="#4c72b0")
    figure.tight_layout()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
