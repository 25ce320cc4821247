"""What a person sees on stderr: our own log lines and progress bars; stdout is for results."""

import logging
import os
import sys
import warnings

from rich.console import Console


def stderr() -> Console:
    """A console for progress bars."""
    return Console(stderr=True)


def set_up_logging() -> None:
    """Let our own lines through, and of libraries only errors."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    logging.getLogger("xinglin").setLevel(logging.INFO if first else logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on kernels at every start
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for category in (FutureWarning, UserWarning):  # of libraries among themselves; ours are log lines and errors
        warnings.filterwarnings("ignore", category=category)
