"""A TensorRT engine on one image, without the package: python examples/run_engine.py qat.plan photo.jpg boxes.jpg.

For engines of an export with a batch of 1 and without --end2end; FP32 in and out. Needs tensorrt, numpy and OpenCV.
"""

import ctypes
import ctypes.util
import sys

import cv2
import numpy as np
import tensorrt as trt


def main(plan: str, photo: str, picture: str, confidence: float = 0.25, iou: float = 0.45) -> np.ndarray:
    """Draw the boxes; gives them as rows of x1, y1, x2, y2, score, class, in pixels of the photo."""
    cuda, stream, at = ctypes.CDLL(ctypes.util.find_library("cudart") or "libcudart.so"), ctypes.c_void_p(), {}
    call = lambda name, *args: getattr(cuda, name)(*args) and sys.exit(f"{name} failed")  # noqa: E731
    logger = trt.Logger(trt.Logger.WARNING)
    trt.init_libnvinfer_plugins(logger, "")  # a plan with a plugin in it does not load before
    engine = trt.Runtime(logger).deserialize_cuda_engine(open(plan, "rb").read())
    context, (_, _, height, width) = engine.create_execution_context(), engine.get_tensor_shape("images")
    context.set_input_shape("images", (1, 3, height, width))  # of a dynamic batch: one image
    call("cudaStreamCreateWithFlags", ctypes.byref(stream), 1)
    host = {name: np.zeros(tuple(context.get_tensor_shape(name)), np.float32) for name in ("images", "outputs")}
    for name, array in host.items():
        at[name] = ctypes.c_void_p()
        call("cudaMalloc", ctypes.byref(at[name]), ctypes.c_size_t(array.nbytes))
        context.set_tensor_address(name, at[name].value)
    image = cv2.imread(photo)
    gain = min(height / image.shape[0], width / image.shape[1])  # letterbox: scaled, centred, on grey 114
    scaled = cv2.resize(image, (int(image.shape[1] * gain), int(image.shape[0] * gain)), interpolation=cv2.INTER_AREA)
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    boxed = np.full((height, width, 3), 114, np.uint8)
    boxed[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    host["images"][0] = boxed[..., ::-1].transpose(2, 0, 1) / 255  # BGR to RGB, HWC to CHW, 0..1
    copy = {n: (ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes)) for n, a in host.items()}
    call("cudaMemcpyAsync", at["images"], copy["images"][0], copy["images"][1], 1, stream)  # 1: to the GPU, 2: back
    assert context.execute_async_v3(stream.value), "the engine failed"
    call("cudaMemcpyAsync", copy["outputs"][0], at["outputs"], copy["outputs"][1], 2, stream)
    call("cudaStreamSynchronize", stream)
    rows = host["outputs"][0]  # cx, cy, w, h in pixels of the input, objectness, a score for each class
    scores = rows[:, 4:5] * rows[:, 5:]  # a YOLOv7 of one class: rows[:, 4:5]
    box, label = np.nonzero(scores > confidence)
    low, size = rows[box, :2] - rows[box, 2:4] / 2, rows[box, 2:4]
    apart = np.hstack((low + label[:, None] * 7680, size))  # boxes of different classes do not suppress each other
    kept = np.ravel(cv2.dnn.NMSBoxes(apart.tolist(), scores[box, label].tolist(), confidence, iou)).astype(int)
    corners = (np.hstack((low, low + size))[kept] - [left, top, left, top]) / gain
    for x1, y1, x2, y2 in corners.round().astype(int).tolist():
        cv2.rectangle(image, (x1, y1), (x2, y2), (0, 0, 255), 2)
    cv2.imwrite(picture, image)
    return np.column_stack((corners, scores[box, label][kept], label[kept]))


if __name__ == "__main__":
    print(main(*sys.argv[1:4]).round(2))
