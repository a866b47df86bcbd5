"""Holds the lock of an output until its standard input ends: python lock_holder.py FILE."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quantization.locks import OutputLocks

if __name__ == "__main__":
    with OutputLocks([sys.argv[1]]):
        print("held", flush=True)
        sys.stdin.read()
