"""Run commands of the bundle in one process, in a checkout: ``python evaluate_cases.py UPSTREAM JOBS.json RESULTS.json``.

JOBS: a list of argument lists. RESULTS: for each its exit code, what it wrote to stderr, and what it logged.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, ".")

from quantization.cli import parser
from quantization.errors import run_main
from quantization.upstream import checkout


def run_job(upstream: str, arguments: list[str]) -> dict[str, Any]:
    """Run one command as its script does."""
    errors, log = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger("quantization").addHandler(handler)
    code: Any = None
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            run_main(lambda _: parser.run(upstream, arguments))
    except SystemExit as end:
        code = end.code
    except Exception as error:  # what would be a traceback
        code = repr(error)
    logging.getLogger("quantization").removeHandler(handler)
    bars = [line.rsplit("\r", 1)[-1] for line in errors.getvalue().split("\n")]  # tqdm erases its bars
    return {"code": code, "stderr": "\n".join(line for line in bars if line.strip()), "log": log.getvalue()}


if __name__ == "__main__":
    checkout.enter_checkout(sys.argv[1], Path.cwd())  # its operators can be registered once in a process
    checkout.enter_checkout = lambda *_: None  # type: ignore[assignment]
    jobs = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    Path(sys.argv[3]).write_text(json.dumps([run_job(sys.argv[1], job) for job in jobs]), encoding="utf-8")
