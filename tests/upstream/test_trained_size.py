"""The image side in a checkpoint's training options, against the options that train.py was given."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from quantization.upstream.trained_size import keep_trained_side, trained_side, warn_of_other_size


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.stride = torch.tensor([8.0, 16.0, 32.0])  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    "content, side",
    [
        ({"opt": {"imgsz": 416}}, 416),
        ({"opt": {"imgsz": 420}}, 448),  # as upstream's check_img_size rounds it
        ({"opt": SimpleNamespace(imgsz=320)}, 320),
        ({"opt": {"imgsz": [640, 320]}}, 640),
        ({"train_args": {"imgsz": 640}}, 640),
        *(({"opt": {"imgsz": wrong}}, None) for wrong in (None, True, "640", -1, [], [[]], 1.5)),
        *((content, None) for content in ({}, {"opt": None}, {"opt": "imgsz"}, {"opt": {}}, {"opt": 3})),
    ],
)
def test_what_a_checkpoint_tells(content: dict[str, Any], side: int | None) -> None:
    model = network()
    keep_trained_side(model, content)
    assert trained_side(model) == side


def test_a_foreign_attribute_is_no_side() -> None:
    model = network()
    model.trained_side = torch.tensor(3)
    assert trained_side(model) is None


def test_one_line_where_the_sizes_differ(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    with caplog.at_level(logging.WARNING, "quantization"):
        warn_of_other_size(model, "best.pt", 640, "--imgsz")  # nothing is known
        keep_trained_side(model, {"opt": {"imgsz": 416}})
        warn_of_other_size(model, "best.pt", 416, "--imgsz")
        assert not caplog.messages
        warn_of_other_size(model, "best.pt", 640, "--imgsz")
    (message,) = caplog.messages
    assert "best.pt was trained at 416 pixels, and is calibrated for 640: give --imgsz 416" in message
