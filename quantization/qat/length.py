"""How long QAT is: steps per epoch from the number of training images, and whether they are enough for the learning rate."""

from __future__ import annotations

import logging
from dataclasses import replace

from quantization.options import QatOptions

LOG = logging.getLogger("quantization")
LEAST_STEPS, MOST_STEPS = 30, 200  # of a default epoch; ten of the shortest settle the default rate
# steps that a run needs per unit of learning rate, 300 at 1e-4: a run first moves the weights by about its rate a step,
# and needs the slow end of its schedule to settle them
SETTLING = 3e6


def with_steps(options: QatOptions, images: int, batch_size: int) -> QatOptions:
    """The options with the steps per epoch that follow from the data, where they do not give any.

    Args:
        options: of the command.
        images: number of training images.
        batch_size: images per step.
    """
    if options.iters is not None:
        return options
    one_pass = -(-images // batch_size)
    return replace(options, iters=min(max(one_pass, LEAST_STEPS), MOST_STEPS))


def warn_if_short(options: QatOptions) -> None:
    """Say before a run that it has too few steps for its learning rate."""
    steps, needed = options.epochs * options.steps, SETTLING * options.lr
    if steps < needed:
        LOG.warning(
            "WARNING: QAT of %d steps is too short for --lr %g and may end below PTQ: give it %d steps (--epochs, --iters), "
            "or --lr %.0e",
            steps,
            options.lr,
            round(needed),
            steps / SETTLING,
        )
