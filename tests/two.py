"""Run a function in two processes that belong together, as torchrun would start them, and get back what both return."""

import logging
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["xinglin.tuning.train"])  # imports once; what is started is a process of its own


def in_two(work: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list[Any]:
    """What `work(*arguments)` returned, or the error's text, in rank 0 and rank 1.

    Raises:
        TimeoutError: one waits for the other.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = SERVER.Queue()
    started = [SERVER.Process(target=_member, args=(rank, port, answers, work, arguments)) for rank in (0, 1)]
    for process in started:
        process.start()
    try:
        got = dict(answers.get(timeout=seconds) for _ in started)
    except Exception:
        raise TimeoutError(f"no answer in {seconds} s") from None
    finally:
        for process in started:
            process.join(10)
            process.kill()
    return [got[0], got[1]]


def _member(rank: int, port: int, answers: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
    }
    import torch

    from xinglin.console import set_up_logging
    from xinglin.tuning import processes

    torch.set_num_threads(1)
    set_up_logging()
    logging.disable(logging.INFO)
    try:
        with processes.joined():
            answers.put((rank, work(*arguments)))
    except Exception as error:
        answers.put((rank, f"{type(error).__name__}: {error}"))
        traceback.print_exc()
