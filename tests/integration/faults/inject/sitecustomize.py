"""Python imports this at its start where the folder is on PYTHONPATH: see fault_points.py."""

import os

if "FAULT" in os.environ:
    import fault_points

    # Taken out of the environment, so that processes started by the run are left alone.
    fault_points.install(os.environ.pop("FAULT"), os.environ.pop("FAULT_MARKER"))
