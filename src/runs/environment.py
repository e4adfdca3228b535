"""What a run ran on: versions, hardware, git state and the command, without secrets."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ["torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "scikit-learn"]
PACKAGES += ["numpy", "pillow"]
SECRET_NAME = re.compile(
    r"(^|_)((api|access|secret|private|account|auth|signing|encryption)_?keys?|token|secrets?"
    r"|passw(or)?ds?|pwd|passphrase|pat|credentials?|auth)(_|$)",
    re.IGNORECASE,
)
CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # apiKey -> api_Key
HIDDEN = "***"
PAIR = re.compile(r"""([\w-]+)(\s*:\s*)('[^']*'|"[^"]*"|[^,{}\[\]]+)""")  # of {KEY: VALUE, ...}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Processor, threads and GPUs; no host name."""
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = (line for line in file if line.startswith("model name"))
            return next(names).split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor()


def git_state() -> dict[str, Any] | None:
    """Commit of this project's repository and whether files differ from it; None outside one."""
    try:
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "timeout": 10}
    return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, **options).stdout.strip()


def command_line() -> list[str]:
    """The command as it was typed, from the name of the script on, without secrets."""
    return [Path(sys.argv[0]).name, *map(redact_argument, sys.argv[1:])]


def redact_argument(argument: str) -> str:
    """A setting KEY=VALUE without the values of keys that are named like secrets."""
    key, _, value = argument.partition("=")
    if any(_is_hidden(part, value) for part in key.lstrip("+~").split(".")):
        return f"{key}={HIDDEN}"
    return PAIR.sub(_redact_pair, argument) if "{" in value else argument


def _redact_pair(pair: re.Match) -> str:
    return f"{pair[1]}{pair[2]}{HIDDEN}" if _is_hidden(pair[1], pair[3]) else pair[0]


def redact_secrets(value: Any, key: str = "") -> Any:
    """Plain values without those whose key, or a key above it, is named like a secret.

    Interpolations such as `${oc.env:NAME}`, empty values and the names of classes stay; nothing is
    compared with the values of environment variables, which may be equal by chance.
    """
    if isinstance(value, Mapping):
        inherited = is_secret(key)
        return {
            k: redact_secrets(v, key if inherited and k != "_target_" else str(k))
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_secrets(item, key) for item in value]
    return HIDDEN if _is_hidden(key, value) else value


def _is_hidden(key: str, value: Any) -> bool:
    if value in (None, "") or isinstance(value, bool) or not is_secret(key):
        return False
    if isinstance(value, int | float):
        return "token" not in key.lower()  # num_token=16 is a size
    return "${" not in str(value)


def is_secret(key: str) -> bool:
    """Whether a key or an environment variable is named like a secret."""
    return SECRET_NAME.search(CAMEL_CASE.sub("_", key).replace("-", "_")) is not None
