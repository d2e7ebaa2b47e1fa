"""Prepared where there is no GPU, built where there is one: everything that TensorRT needs of a model, in a folder.

    graph.onnx         as TensorRT takes it: with the operators as plugins, or with standard operators only
    portable.onnx      the graph as `cluinfer export` writes it, which goes into the artifact
    kernels/*.ptx      the plugins' kernels, one for each shape, for the target and later GPUs
    emitted.json       what this is, and the sha256 of every other file
    COMMAND.txt        what to type on the target

`cluinfer build FOLDER -o model.clu` makes the artifact there, without PyTorch. A folder may come from anyone: it is
checked throughout, and nothing in it is executed but the kernels, on the GPU.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluinfer.build_graphs import NO_IMAGES, Calibration, Made, make_graph
from cluinfer.engines import Options, get_engine
from cluinfer.engines.quantized import INT8, is_quantized
from cluinfer.errors import EngineError
from cluinfer.json_fields import Fields
from cluinfer.whole import whole_file, whole_folder

if TYPE_CHECKING:
    from cluinfer.calibration import Calibrated
    from cluinfer.export.source import Source
    from cluinfer.fidelity import Fidelity

VERSION = 1
GRAPH, PORTABLE, DESCRIPTION, COMMAND = "graph.onnx", "portable.onnx", "emitted.json", "COMMAND.txt"
KERNELS = "kernels"
_PTX = re.compile(r"kernels/[a-z0-9_]{1,120}\.ptx")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Emitted:
    """A folder, as its description says."""

    path: Path
    target: str
    precision: str
    plugins: bool
    profile: tuple[int, int, int]
    kernels: Mapping[str, str]  # sha256 of a kernel's source: its file
    files: Mapping[str, str]  # file: its sha256
    calibrated: Calibrated | None = None  # known to who emitted it alone, as is the next
    fidelity: Fidelity | None = None  # of the graph below fp32, in ONNX Runtime

    def read(self, name: str) -> bytes:
        """A file, as it was written."""
        path = self.path / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.files[name]:
            raise EngineError(f"{path}: damaged or changed, its sha256 is wrong; copy the folder or emit it again")
        return content

    def ptx(self) -> dict[str, bytes]:
        """The kernels by the sha256 of their source."""
        return {source: self.read(name) for source, name in self.kernels.items()}


def emit(
    model: str | Path,
    output: str | Path,
    *,
    target: str,
    precision: str = "fp32",
    plugins: bool = True,
    profile: tuple[int, int, int] = (1, 1, 1),
    source_options: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    progress: Progress = lambda step: None,
) -> Emitted:
    """Write the folder, whole or not at all; `source_options` as for `read_source`. An older one is replaced.

    Below fp32 the graph is converted here, as `build` does it, and held against the model in ONNX Runtime.
    """
    from cluinfer.engines.trt.graph import kernels, standard, with_plugins
    from cluinfer.engines.trt.precision import check_precision, check_types
    from cluinfer.export.source import read_source
    from cluinfer.native.cuda.nvrtc import check_target, compile_ptx

    check_precision(precision)
    given = calibration or Calibration()
    given.check(precision)
    if precision == INT8 and not given.images and Path(model).suffix != ".onnx":  # which may be calibrated already
        raise EngineError(NO_IMAGES)
    if plugins:
        check_target(target)
    elif not re.fullmatch(r"sm_\d{2,3}", target):
        raise EngineError(f"a target is a GPU such as sm_90, got {target!r:.60}")
    folder = _free(Path(output))
    source = read_source(model, **(source_options or {}), progress=progress)
    quantized = is_quantized(source.content)
    options = Options(precision, batch=profile[1])
    made = make_graph(precision, source, given, get_engine("trt"), options, progress, timed=False)
    check_types(made.content, precision)
    fidelity = _fidelity(made, source, progress) if precision != "fp32" and not quantized else None
    contents: dict[str, bytes] = {PORTABLE: made.content}
    index: dict[str, str] = {}
    if plugins:
        contents[GRAPH], calls = with_plugins(made.content)
        named = kernels(calls)
        progress(f"compiling {len(named)} kernels for {target}")
        for name, kernel in named.items():
            contents[f"{KERNELS}/{name}.ptx"] = compile_ptx(kernel, target)
            index[hashlib.sha256(kernel.source.encode()).hexdigest()] = f"{KERNELS}/{name}.ptx"
    else:
        contents[GRAPH] = standard(made.content)
    contents[COMMAND] = _command(folder.name, target, plugins).encode()
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    emitted = Emitted(folder, target, precision, plugins, profile, index, files, made.calibrated, fidelity)
    progress(f"writing {folder}")
    _write(folder, {**contents, DESCRIPTION: _describe(emitted)})
    return emitted


def _fidelity(made: Made, source: Source, progress: Progress) -> Fidelity:
    """On the images that calibration held back, or on smooth noise."""
    if made.calibrated is not None:
        return made.calibrated.kept.fidelity
    import onnx

    from cluinfer.export.images import synthetic_images
    from cluinfer.export.verify import GraphRun, measure

    progress(f"comparing the graph with {source.name}")
    run = GraphRun(onnx.load_model_from_string(made.content), PORTABLE)
    return measure(run, source.reference, [synthetic_images(8, source.promise.size)])


def read_emitted(folder: str | Path) -> Emitted:
    """The description of a folder, every field checked."""
    path = Path(folder)
    try:
        text = (path / DESCRIPTION).read_bytes()
    except OSError as error:
        raise EngineError(
            f"{path}: wanted a folder that `cluinfer build --emit-only` wrote, it has no {DESCRIPTION}"
        ) from error
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path / DESCRIPTION}: not JSON: {error}") from error
    try:
        return _Reader(held).emitted(path)
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from error


def _describe(emitted: Emitted) -> bytes:
    held = {
        "version": VERSION,
        "target": emitted.target,
        "precision": emitted.precision,
        "plugins": emitted.plugins,
        "profile": list(emitted.profile),
        "kernels": dict(emitted.kernels),
        "files": dict(emitted.files),
    }
    return json.dumps(held, indent=1).encode()


def _command(folder: str, target: str, plugins: bool) -> str:
    needs = "TensorRT 10.9 or later" if plugins else "TensorRT 8.6 or later"
    return (
        f"On a machine with {needs} and a GPU of compute capability {target[3:-1]}.{target[-1]} or later:\n\n"
        f"pip install 'cluinfer[trt]'\ncluinfer build {folder} -o model.clu\n"
    )


def _free(folder: Path) -> Path:
    """Where to write: nothing is there, or an empty folder, or one that was emitted earlier."""
    if not folder.absolute().parent.is_dir():
        raise EngineError(f"-o {folder}: its parent folder does not exist")
    if folder.is_dir():
        if any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
            raise EngineError(
                f"-o {folder}: a folder with other things in it; wanted a new one, or one emitted earlier"
            )
    elif folder.exists():
        raise EngineError(f"-o {folder}: wanted the name of a folder, found a file")
    return folder.absolute()


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    try:
        with whole_folder(folder) as made:
            for name, content in contents.items():
                path = made / name
                path.parent.mkdir(exist_ok=True)
                with whole_file(path) as file:  # on the disk before the folder has its name
                    file.write(content)
    except OSError as error:
        raise EngineError(f"-o {folder}: cannot write there: {error.strerror}") from error


class _Reader(Fields):
    what = "the description"
    error = EngineError

    def emitted(self, path: Path) -> Emitted:
        version = self.number("version", 1)
        if version > VERSION:
            raise EngineError(f"written in version {version}, this cluinfer reads up to {VERSION}; update cluinfer")
        made = Emitted(
            path,
            self.text("target"),
            self.text("precision"),
            self.take("plugins", bool),
            self.profile(self.take("profile", list)),
            self.texts("kernels"),
            self.texts("files"),
        )
        self.end()
        allowed = {GRAPH, PORTABLE, COMMAND}
        if not {GRAPH, PORTABLE} <= made.files.keys() or any(
            name not in allowed and not _PTX.fullmatch(name) for name in made.files
        ):
            raise self.wrong("files must be graph.onnx, portable.onnx and kernels/*.ptx")
        if not set(made.kernels.values()) <= made.files.keys():
            raise self.wrong("kernels names files that are not listed")
        return made

    def profile(self, sides: Sequence[Any]) -> tuple[int, int, int]:
        if len(sides) != 3 or not all(type(side) is int for side in sides) or not 1 <= sides[0] <= sides[1] <= sides[2]:
            raise self.wrong(f"profile must be three batches in rising order, got {sides!r:.60}")
        return sides[0], sides[1], sides[2]
