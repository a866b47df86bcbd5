"""What differs between TensorRT 8.5 and 11, one named function for each difference.

Sources: NVIDIA's release notes and 10.x to 11.x migration guide. Attribute names were looked up in the Python modules
8.6.0, 10.16.1 and 11.4.0, trtexec's options in its source of 8.5.3, 8.6.1, 10.0.1, 10.12, 10.16, 11.0 and 11.1.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import Any, Tuple

from quantization.errors import UserError

Version = Tuple[int, int, int]

OLDEST: Version = (8, 5, 0)
NEWEST_MAJOR = 11
KNOWN_FORMS = "8.5, 8.6.1, 10, 10.x, 10.13.2 or 11"


def parse_version(text: str) -> Version:
    """Read the version that TensorRT gives itself, such as ``8.6.0`` or ``10.16.1.11``.

    Raises:
        UserError: the text is no version, or one older than 8.5.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise UserError(f"TensorRT gives its version as {text!r}, not as 8.6.0 or 10.16.1: check the installation")
    version = (int(match.group(1)), int(match.group(2)), int(match.group(3) or 0))
    if version < OLDEST:
        raise UserError(f"TensorRT {text} is too old: these tools need the tensor-name API of 8.5 or newer")
    return version


def installed_version() -> Version:
    """The version of the Python package tensorrt; see ``import_tensorrt``."""
    return parse_version(import_tensorrt().__version__)


def asked_version(text: str, flag: str) -> Version:
    """Read a version that a user names: ``11``, ``11.x``, ``10.3``, ``8.6.1``, ``10.16.1.11``.

    Args:
        text: the version; of what it leaves open the first release.
        flag: the option that it comes from, for the message.

    Raises:
        UserError: the text is no version, or none that these tools know.
    """
    match = re.fullmatch(r"(\d+)(?:\.x|\.(\d+)(?:\.x|\.(\d+)(?:\.\d+)?)?)?", text)
    if match is not None:
        version = (int(match.group(1)), int(match.group(2) or 0), int(match.group(3) or 0))
        if match.group(2) is None and version[0] == OLDEST[0]:
            return OLDEST
        if OLDEST <= version and version[0] <= NEWEST_MAJOR:
            return version
    raise UserError(f"{flag} {text} is no TensorRT version from 8.5 to {NEWEST_MAJOR}: give one as {KNOWN_FORMS}")


def parse_version_number(number: int) -> Version:
    """Decode NV_TENSORRT_VERSION as trtexec prints it: 8601 is 8.6.1, 101600 is 10.16.0."""
    major_unit = 1000 if number < 100000 else 10000  # the major version got one more digit in 10.0
    return number // major_unit, number % major_unit // 100, number % 100


def is_strongly_typed_only(version: Version) -> bool:
    """From 11.0 every network is strongly typed: --fp16, --int8 and their builder flags are gone."""
    return version >= (11, 0, 0)


def has_strong_typing(version: Version) -> bool:
    """NetworkDefinitionCreationFlag.STRONGLY_TYPED and --stronglyTyped came with 10.0."""
    return version >= (10, 0, 0)


def deprecates_weak_typing(version: Version) -> bool:
    """From 10.12 a network that is not strongly typed is deprecated; 11.0 has none."""
    return (10, 12, 0) <= version < (11, 0, 0)


def has_implicit_ptq(version: Version) -> bool:
    """Calibrators were deprecated in 10.1 and removed in 11.0."""
    return version < (11, 0, 0)


def has_opt_level(version: Version) -> bool:
    """builder_optimization_level came with 8.6."""
    return version >= (8, 6, 0)


def gains_by_tanh_silu(version: Version) -> bool:
    """Whether SiLU spelled with tanh is faster in front of a Q: measured on 8.6; of 11 others report no gain."""
    return version < (10, 0, 0)


def has_deprecated_nms_plugin(version: Version) -> bool:
    """EfficientNMS_TRT was deprecated in 10.12."""
    return version >= (10, 12, 0)


def highest_opset(version: Version) -> int:
    """The newest ONNX opset that the parser's documentation names, for the first release of each major version."""
    newest_first = (((11, 0, 0), 25), ((10, 0, 0), 20), ((9, 0, 0), 19))
    return next((opset for since, opset in newest_first if version >= since), 17)


def build_only_flag(version: Version) -> str:
    """The --buildOnly of trtexec was renamed in 8.6 and the old name removed in 10.0."""
    return "--skipInference" if version >= (8, 6, 0) else "--buildOnly"


def has_fast_timing_defaults(version: Version) -> bool:
    """From 11.0 trtexec uses a CUDA graph, spin wait, no data transfers and a separate profile run by itself."""
    return version >= (11, 0, 0)


def tactic_sources(version: Version) -> tuple[str, ...]:
    """Names of the tactic sources; the three libraries were removed in 11.0."""
    convolutions = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    return convolutions if version >= (11, 0, 0) else ("CUBLAS", "CUBLAS_LT", "CUDNN", *convolutions)


def network_flags(trt: Any, strongly_typed: bool) -> int:
    """Flags for ``Builder.create_network``: explicit batch has no flag from 11.0, strong typing has one from 10.0."""
    flags = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if strongly_typed else [])
    return sum(1 << int(getattr(flags, name)) for name in names if hasattr(flags, name))


@functools.lru_cache(maxsize=None)
def import_tensorrt() -> Any:
    """Import the tensorrt module.

    Raises:
        UserError: it is missing, broken or older than 8.5.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # its own loader raises FileNotFoundError for a missing library
        raise UserError(
            f"the Python package tensorrt cannot be imported ({error}): install it (pip install tensorrt; "
            "JetPack brings its own), or see bench-engine.py --use-trtexec, and --dry-run with --trt-version"
        ) from error
    parse_version(tensorrt.__version__)
    return tensorrt


@functools.lru_cache(maxsize=None)
def logger() -> Any:
    """The process's one TensorRT logger: TensorRT ignores a second.

    Errors are printed and kept in ``errors``; warnings and information are printed when ``verbose`` is set.
    """
    import_tensorrt()  # a clear error where it is missing
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.verbose = False
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            is_error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
            if is_error:
                self.errors.append(" ".join(message.split()))
            if is_error or (self.verbose and severity != trt.ILogger.VERBOSE):
                print(f"[TensorRT] {message}", file=sys.stderr)

        def last_error(self) -> str:
            return self.errors[-1] if self.errors else "no error message"

    return Log()
