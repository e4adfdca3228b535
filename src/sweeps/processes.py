"""How the processes of jobs start: forked from a server that has imported what a run needs.

The server has neither threads nor a GPU, so forking it is safe. Elsewhere than on Linux every job
is a new interpreter.
"""

import multiprocessing
import multiprocessing.forkserver
import sys
from typing import Any

METHOD: Any = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT = multiprocessing.get_context(METHOD)


def start_server() -> None:
    """Let the server begin with its imports while this process does something else."""
    if METHOD == "forkserver":
        CONTEXT.set_forkserver_preload([f"{__package__}.server"])
        multiprocessing.forkserver.ensure_running()
