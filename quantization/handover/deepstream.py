"""Configuration of DeepStream's nvinfer, with a parser of the outputs: neither nvinfer's own nor DeepStream-Yolo's fits.

Those of DeepStream-Yolo read rows of six numbers, x1 y1 x2 y2 score class, and would take the second class's score of our
rows (5 + classes) for the class.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from quantization.files import atomic_write
from quantization.handover.facts import NetworkFacts
from quantization.handover.triton import labels_text

PARSER = "parse_boxes.cpp"
LIBRARY = "libparse_boxes.so"
CONFIDENCE, IOU, MOST = 0.25, 0.45, 300  # those of upstream's detect.py; MOST of its evaluation
NO_CLUSTERING, NMS = 4, 2  # values of cluster-mode


def write_deepstream(folder: Path, graph: onnx.ModelProto, facts: NetworkFacts, batch: int) -> list[Path]:
    """Write ``config_infer.txt``, ``labels.txt``, ``model.onnx`` and the parser's source.

    Args:
        folder: where to.
        graph: the ONNX.
        facts: of it.
        batch: images per batch, where the ONNX leaves them open.

    Returns:
        What was written.
    """
    files = {
        folder / "config_infer.txt": deepstream_config(facts, batch).encode("utf-8"),
        folder / "labels.txt": labels_text(facts).encode("utf-8"),
        folder / "model.onnx": graph.SerializeToString(),
        folder / PARSER: Path(__file__).with_name(PARSER).read_bytes(),
    }
    for file, content in files.items():
        with atomic_write(file) as temporary:
            Path(temporary).write_bytes(content)
    return list(files)


def deepstream_config(facts: NetworkFacts, batch: int) -> str:
    """The configuration file of nvinfer: pixels / 255 in RGB, letterboxed in the middle, and the parser."""
    channels, height, width = facts.input.shape
    properties: dict[str, object] = {
        "gpu-id": 0,
        "net-scale-factor": repr(1 / 255),  # y = net-scale-factor * x
        "model-color-format": 0,  # RGB
        "infer-dims": f"{channels};{height};{width}",
        "maintain-aspect-ratio": 1,
        "symmetric-padding": 1,
        "model-engine-file": "model.plan",
        "labelfile-path": "labels.txt",
        "num-detected-classes": len(facts.names),
        "batch-size": facts.batch or batch,
        "network-mode": 1,  # INT8
        "network-type": 0,  # detector
        "process-mode": 1,  # whole frames
        "gie-unique-id": 1,
        "output-blob-names": ";".join(output.name for output in facts.outputs),
        "parse-bbox-func-name": _parser(facts),
        "custom-lib-path": LIBRARY,
        "cluster-mode": NO_CLUSTERING if facts.is_suppressed else NMS,
    }
    classes: dict[str, object] = {"pre-cluster-threshold": CONFIDENCE, "topk": MOST}
    if not facts.is_suppressed:
        classes["nms-iou-threshold"] = IOU
    head = (
        "# model.plan is missing: build it from model.onnx with trtexec, on the target. nvinfer itself builds an INT8 ONNX\n"
        "# that has no calibration table in FP16, so no onnx-file is named here.\n"
        f"# {LIBRARY}: g++ -shared -fPIC -O2 -I/opt/nvidia/deepstream/deepstream/sources/includes \\\n"
        f"#     -I/usr/local/cuda/include -o {LIBRARY} {PARSER}\n"
    )
    parts = [("property", properties), ("class-attrs-all", classes)]
    return head + "\n".join(f"[{title}]\n" + "".join(f"{k}={v}\n" for k, v in part.items()) for title, part in parts)


def _parser(facts: NetworkFacts) -> str:
    if facts.is_suppressed:
        return "NvDsInferParseDetections"
    return "NvDsInferParseObjectness" if facts.objectness_only else "NvDsInferParseRows"
