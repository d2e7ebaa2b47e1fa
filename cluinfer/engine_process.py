"""A session in a process of its own, for processes in which an engine could hang (`forks` says why).

The process is a fresh interpreter that opens the artifact by its path. They talk over socket pairs, one for each run
that may be at work at once: a line of JSON, then the bytes of each array; nothing is pickled. It ends when its sockets
are closed, which the system does for whoever is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from cluinfer import errors
from cluinfer.artifact import read_artifact
from cluinfer.engines import Array, Options, Session
from cluinfer.engines.base import THROUGHPUT, Input
from cluinfer.engines.hardware import cores
from cluinfer.errors import CluinferError, EngineError, EngineWarning
from cluinfer.loading import engine_for, load, options_for

# Without the working folder, which -c puts first: what lies in it by chance must not be imported.
_CODE = "import sys; sys.path[:] = filter(None, sys.path); from cluinfer.engine_process import main; main()"


_GONE = "the process that runs the engine has ended: open the artifact again"


class _GoneError(EngineError):
    """Made of its message, as others are: it may be pickled on the way to another process."""


class RemoteSession(Session):
    """A session of another process; the contract is in engines/base.py."""

    def __init__(self, path: Path, device: str | None, options: Options) -> None:
        count = options.streams or (cores() if options.hint == THROUGHPUT else 1)
        self._process, self._connections = _start(path, device, options, count)
        try:
            hello, _ = _received(self._connections[0])
        except BaseException:
            self._free()
            raise
        for message in hello["warnings"]:
            warnings.warn(message, EngineWarning, stacklevel=5)
        inputs = {name: Input(tuple(shape), dtype) for name, shape, dtype in hello["inputs"]}
        super().__init__(inputs, hello["outputs"], hello["batch"], count)
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        for connection in self._connections:
            self._idle.put(connection)

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        connection = self._idle.get()
        try:
            _send(connection, {}, feeds)
            return _received(connection)[1]
        except CluinferError:
            raise
        except BaseException:  # interrupted between two messages, it would take the answer for that of the next run
            connection.close()
            raise
        finally:
            self._idle.put(connection)

    def _free(self) -> None:
        for connection in self._connections:
            connection.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def after_fork(self) -> None:
        """The grandchild has no part in it; what it held open would keep the process alive."""
        super().after_fork()
        for connection in self._connections:
            connection.close()


def main() -> None:
    """The other process: load, say what it is, answer until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks is interrupted, too, and ends this by ending
    given = json.loads(sys.argv[1])
    connections = [Connection(handle) for handle in given["handles"]]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            artifact = read_artifact(given["path"])
            options = options_for(artifact, given["threads"], given["streams"], given["hint"])
            session = load(artifact, engine_for(artifact, given["device"]), options)
    except CluinferError as error:
        _send(connections[0], _described(error), {})
        return
    hello = {
        "inputs": [[name, each.shape, each.dtype] for name, each in session.inputs.items()],
        "outputs": session.outputs,
        "batch": session.batch,
        "warnings": [str(each.message) for each in caught if issubclass(each.category, EngineWarning)],
    }
    _send(connections[0], hello, {})
    workers = [threading.Thread(target=_serve, args=(session, connection)) for connection in connections]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _serve(session: Session, connection: Connection) -> None:
    """Whatever happens here, the connection is closed in the end: who asks must not wait for ever."""
    with connection:
        while True:
            try:
                _, feeds = _received(connection)
                _send(connection, {}, session.run(feeds))
            except _GoneError:
                return
            except CluinferError as error:
                _send(connection, _described(error), {})


def _start(path: Path, device: str | None, options: Options, count: int) -> tuple[Any, list[Connection]]:
    if not sys.executable:
        raise EngineError("a forked process needs another for its engine, but there is no Python to start: use spawn")
    ours, theirs = zip(*(socket.socketpair() for _ in range(count)), strict=True)
    handles = [each.fileno() for each in theirs]
    given = {
        "path": str(path),
        "device": device,
        "threads": options.threads,
        "streams": options.streams,
        "hint": options.hint,
        "handles": handles,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, json.dumps(given)],
            stdin=subprocess.DEVNULL,
            pass_fds=handles,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(each or str(Path.cwd()) for each in sys.path)},
        )
    except OSError as error:
        for each in ours:
            each.close()
        raise EngineError(f"the process that runs the engine cannot be started: {error}") from error
    finally:
        for each in theirs:
            each.close()
    return process, [Connection(each.detach()) for each in ours]


def _described(error: CluinferError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}


def _send(connection: Connection, head: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    listed = [[name, array.shape, array.dtype.str] for name, array in arrays.items()]
    try:
        connection.send_bytes(json.dumps({**head, "arrays": listed}).encode())
        for array in arrays.values():
            connection.send_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise _GoneError(_GONE) from error


def _received(connection: Connection) -> tuple[dict[str, Any], dict[str, Array]]:
    arrays: dict[str, Array] = {}
    try:
        head = json.loads(connection.recv_bytes())
        for name, shape, dtype in head["arrays"]:
            arrays[name] = np.empty(shape, dtype)
            connection.recv_bytes_into(arrays[name].reshape(-1).view(np.uint8).data)
    except (EOFError, OSError) as error:
        raise _GoneError(_GONE) from error
    if "error" in head:
        kind = getattr(errors, head["error"], EngineError)
        raise kind(head["message"])
    return head, arrays
