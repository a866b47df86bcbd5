"""Check config.pbtxt files against Triton's whole schema: python triton_schema.py model_config.proto CONFIG.pbtxt ...

model_config.proto is github.com/triton-inference-server/common, protobuf/model_config.proto; needs pip install grpcio-tools.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main(schema: str, configs: list[str]) -> None:
    """Raises what protobuf raises of a file that does not fit."""
    from google.protobuf import (  # type: ignore[import-untyped]
        descriptor_pb2,
        descriptor_pool,
        message_factory,
        text_format,
    )
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "schema.bin")
        folder_of = Path(schema).resolve().parent
        if protoc.main(["protoc", f"-I{folder_of}", f"--descriptor_set_out={binary}", str(Path(schema).resolve())]):
            raise SystemExit(f"{schema} is no .proto file that protoc reads")
        files = descriptor_pb2.FileDescriptorSet.FromString(binary.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    for config in configs:
        message = text_format.Parse(Path(config).read_text(encoding="utf-8"), kind())
        print(f"{config}: {message.name}, {len(message.input)} input, {len(message.output)} outputs, fits")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
