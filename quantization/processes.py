"""Which process made a file, and whether it still runs. stdlib only."""

from __future__ import annotations

import os
import re
import socket


def host_name() -> str:
    """The machine's name, as it is written into file names: letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:32] or "host"


def is_running(number: int) -> bool:
    """Whether a process of this machine exists."""
    if os.name == "nt":  # os.kill(n, 0) ends a process there
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
