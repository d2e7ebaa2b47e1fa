"""Triton Inference Server, the real one: the binary that the package nvidia-pytriton carries, on a model repository.

The Python backend's process imports cluinfer and NumPy from where this process has them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

STUB = "triton_python_backend_stub"
START, STOP = 60, 20  # seconds at most


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    for module in ("tritonclient", "pytriton"):
        if find_spec(module) is None:
            return f"{module} is not installed: pip install 'cluinfer[triton]'; pip install --no-deps nvidia-pytriton"
    return "" if _stub().is_file() else f"nvidia-pytriton has no Python backend for Python {_python()}"


class Server:
    """A server on free ports of this machine, ended on leaving the block. Models are loaded when they are asked for."""

    def __init__(self, repository: Path, *models: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        backends = folder / "backends"
        shutil.copytree(_package() / "tritonserver" / "backends", backends)
        shutil.copy(_stub(), backends / "python" / STUB)
        http, grpc, metrics = _free_ports(3)
        self.http, self.grpc, self.metrics = (f"127.0.0.1:{port}" for port in (http, grpc, metrics))
        self._log = folder / "log"
        command = [
            *(str(_package() / "tritonserver" / "bin" / "tritonserver"), f"--model-repository={repository.resolve()}"),
            *(f"--backend-directory={backends}", "--model-control-mode=explicit", "--exit-timeout-secs=5"),
            *(f"--load-model={model}" for model in models),
            *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"),
            *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
            f"--backend-config=python,shm-region-prefix-name=cluinfer{os.getpid()}",
        ]
        # In its own folder: Python in its backend looks there first, and a checkout's cluinfer has no native operators.
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=_environment(), cwd=folder
            )

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Server:
        end = time.monotonic() + START
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                text = self.log()
                self.close()
                raise RuntimeError(f"the server did not become ready:\n{text}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, as a service manager would."""
        self.process.terminate()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()

    def _ready(self) -> bool:
        try:
            with urlopen(f"http://{self.http}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def _package() -> Path:
    spec = find_spec("pytriton")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _stub() -> Path:
    return _package() / "tritonserver" / "python_backend_stubs" / _python() / STUB


def _environment() -> dict[str, str]:
    """With the libraries that the binary was linked with, Python's own, and our packages."""
    import cluinfer

    libraries = [_package().parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR") or ""]
    packages = [Path(cluinfer.__file__).parent.parent, *filter(None, sys.path)]
    before = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, [*filter(None, libraries), *([before] if before else [])])),
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
