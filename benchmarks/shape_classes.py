"""What the drawn data set shows: classes, ten shapes times eight textures, and the background behind them."""

from __future__ import annotations

import cv2
import numpy as np

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "heart", "crescent", "arrow", "bar")
TEXTURES = ("striped", "checked", "dotted", "plain", "grid", "speckled", "zigzag", "concentric")
MAX_CLASSES = len(SHAPES) * len(TEXTURES)


def shape_and_texture(cls: int) -> tuple[str, str]:
    """Shape and texture of class ``cls``: neighbours differ in both, and all 80 pairs occur once."""
    return SHAPES[cls % 10], TEXTURES[(cls + cls // 10) % 8]


def class_names(classes: int) -> list[str]:
    """Names of the first ``classes`` classes, such as ``striped-disc``."""
    return ["{1}-{0}".format(*shape_and_texture(cls)) for cls in range(classes)]


def _regular(corners: int, phase: float = -90.0) -> np.ndarray:
    angle = np.radians(phase + 360 * np.arange(corners) / corners)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _unit_outline(shape: str) -> np.ndarray:
    """Corners of a shape inside the unit circle, (n, 2)."""
    if shape in ("disc", "ring"):
        return _regular(48)
    if shape == "square":
        return _regular(4, 45)
    if shape == "triangle":
        return _regular(3)
    if shape == "star":
        return _regular(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    if shape == "cross":
        a, b = 0.3, 0.95
        return np.array(
            [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
        )
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([16 * np.sin(t) ** 3, -y - 2.5], axis=1) / 17
    if shape == "crescent":
        t = np.radians(np.linspace(50, 310, 40))
        outer = np.stack([np.cos(t), np.sin(t)], axis=1)
        # an arc back from tip to tip, bulging the same way
        tip = np.array([np.cos(t[0]), np.sin(t[0])])
        s = np.linspace(-tip[1], tip[1], 24)
        inner = np.stack([tip[0] - 0.95 * (1 - (s / tip[1]) ** 2), s], axis=1)
        return np.concatenate([outer, inner])
    if shape == "arrow":
        return np.array(
            [(-0.95, -0.28), (0.05, -0.28), (0.05, -0.75), (0.95, 0.0), (0.05, 0.75), (0.05, 0.28), (-0.95, 0.28)]
        )
    return np.array([(-0.95, -0.3), (0.95, -0.3), (0.95, 0.3), (-0.95, 0.3)])  # bar


def outline(cls: int, radius: float, degrees: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A class's outline around the origin.

    Args:
        cls: class index.
        radius: of the enclosing circle, pixels.
        degrees: rotation.
        rng: decides on a slight stretch.

    Returns:
        Corners in pixels, (n, 2), and the radius in pixels of a round hole at the origin (0: none).
    """
    shape, _ = shape_and_texture(cls)
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch = 1.0 if shape == "ring" else rng.uniform(0.8, 1.0)  # a ring's hole is a circle
    return _unit_outline(shape) * (1, stretch) @ rotation * radius, 0.52 * radius if shape == "ring" else 0.0


def texture(cls: int, side: int, diameter: float, rng: np.random.Generator) -> np.ndarray:
    """A class's texture on a square patch.

    Args:
        cls: class index.
        side: of the patch, pixels.
        diameter: of the object, pixels; the texture's period follows it, but is never under 4 pixels.
        rng: decides on period, phase and direction.

    Returns:
        Mixing weights of the second colour, float32, (side, side), 0 to 1.
    """
    _, kind = shape_and_texture(cls)
    period = max(diameter * rng.uniform(0.2, 0.3), 4.0)
    angle = np.radians(rng.uniform(-25, 25))
    axis = (np.arange(side, dtype=np.float32) - side / 2) * np.float32(2 * np.pi / period)
    u = axis[None, :] * np.float32(np.cos(angle)) + axis[:, None] * np.float32(np.sin(angle))
    v = axis[:, None] * np.float32(np.cos(angle)) - axis[None, :] * np.float32(np.sin(angle))
    if kind == "plain":
        return np.zeros((side, side), np.float32)
    if kind == "speckled":
        grain = max(round(period / 6), 1)
        small = rng.random((side // grain + 1, side // grain + 1), dtype=np.float32)
        return np.kron(small, np.ones((grain, grain), np.float32))[:side, :side]
    if kind == "striped":
        wave = np.sin(u)
    elif kind == "checked":
        wave = np.sin(u / 2) * np.sin(v / 2) * 2
    elif kind == "dotted":
        wave = np.cos(u) + np.cos(v) - 0.7
    elif kind == "grid":
        wave = np.maximum(np.cos(u), np.cos(v)) - 0.75
    elif kind == "zigzag":
        wave = np.sin(u + 2.5 * np.arcsin(np.sin(v / 2)))
    else:  # concentric
        wave = np.sin(np.sqrt(u * u + v * v))
    return np.clip(wave * 3 + 0.5, 0, 1)  # soft edges instead of aliased ones


def background(rng: np.random.Generator, height: int, width: int, difficulty: float) -> np.ndarray:
    """Gradient, blotches and distractor lines. Returns a float32 BGR image, (height, width, 3)."""
    coarse = cv2.resize(rng.uniform(30, 225, (2, 2, 3)).astype(np.float32), (6, 6), interpolation=cv2.INTER_LINEAR)
    coarse += rng.normal(0, 10 + 20 * difficulty, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.poisson(16 * difficulty)):
        ends = rng.uniform(0, 1, (2, 2)) * (width, height)
        colour = rng.uniform(0, 255, 3).tolist()
        thickness = int(rng.integers(1, 2 + max(1, max(height, width) // 100)))
        if rng.random() < 0.7:
            cv2.line(image, tuple(ends[0].astype(int).tolist()), tuple(ends[1].astype(int).tolist()), colour, thickness)
        else:  # an open arc: curved like a disc's rim, but no object
            radius = int(rng.uniform(0.05, 0.4) * max(height, width))
            start = rng.uniform(0, 360)
            centre = tuple(ends[0].astype(int).tolist())
            cv2.ellipse(image, centre, (radius, radius), 0, start, start + rng.uniform(40, 150), colour, thickness)
    return image
