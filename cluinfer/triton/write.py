"""A model of Triton on disk: `repository/<name>/` with config.pbtxt and version 1, and kserve.yaml beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cluinfer.artifact import Artifact, read_artifact
from cluinfer.errors import ArtifactError, CluinferError
from cluinfer.triton.config import LABELS, MARK, Batches, Serving, check_name, config, kserve
from cluinfer.whole import whole_file, whole_folder

CONFIG, KSERVE = "config.pbtxt", "kserve.yaml"
STORAGE, IMAGE = "pvc://models", "cluinfer-triton"


@dataclass(frozen=True)
class Package:
    """What was written."""

    folder: Path
    platform: str  # python, tensorrt_plan
    max_batch: int
    outputs: tuple[str, ...]
    manifest: Path


def package(
    model: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    name: str | None = None,
    serving: Serving | None = None,
    *,
    storage: str = STORAGE,
    image: str = IMAGE,
) -> Package:
    """Write the artifact as a model of this repository, whole or not at all; `name`: by default that of the file.

    A model of this name that was written so before is replaced, anything else never.
    """
    serving = serving or Serving()
    name = check_name(Path(model).stem if name is None else name)
    artifact = read_artifact(model)
    promise, compiled = artifact.manifest.promise, artifact.manifest.built.batch
    plan = None if serving.pictures else _plan(artifact)
    batches = Batches.of(compiled, serving.max_batch) if plan is None else plan.batches(serving.max_batch)
    text = config(name, promise, serving, batches, plan is not None)
    folder, manifest = Path(repository, name), Path(repository, KSERVE)
    with _explained(folder):
        _check_ours(folder, folder / CONFIG)
        _check_ours(manifest, manifest)
        Path(repository).mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as made:  # under a name with a dot, which Triton takes for no model
            (made / "1").mkdir()
            (made / CONFIG).write_text(text, encoding="utf-8")
            if promise.names:
                names = (" ".join(each.split()) for each in promise.names)
                (made / LABELS).write_text("".join(f"{each}\n" for each in names), encoding="utf-8")
            if plan is None:
                code = files(__package__).joinpath("model.py").read_bytes()
                (made / "1" / "model.py").write_bytes(code)
                shutil.copyfile(artifact.path, made / "1" / "model.clu")
                _check_same(artifact, made / "1" / "model.clu")
            else:
                (made / "1" / "model.plan").write_bytes(plan.content)
        text = kserve(name, storage, None if plan is not None else image)
        with whole_file(manifest) as file:
            file.write(text.encode())
    platform = "python" if plan is None else "tensorrt_plan"
    return Package(folder, platform, batches.most, serving.outputs(promise), manifest)


@dataclass(frozen=True)
class _Plan:
    """An engine of TensorRT, and the batches it takes: at least, at best, at most."""

    content: bytes
    profile: tuple[int, int, int]

    def batches(self, wanted: int | None) -> Batches:
        least, best, most = self.profile
        if least > 1:
            raise ArtifactError(
                f"its engine takes no batch of less than {least}: build it with --batch 1:{best}:{most}"
            )
        if wanted is not None and wanted > most:
            raise CluinferError(f"max_batch {wanted} is more than the {most} images that the engine was built for")
        return Batches(wanted or most, min(best, wanted or most))


def _plan(artifact: Artifact) -> _Plan | None:
    """The engine that TensorRT itself reads, where the artifact has one."""
    blob = artifact.engine() if artifact.manifest.built.engine == "trt" else None
    if blob is None:
        return None
    from cluinfer.engines.tensorrt import plan

    return _Plan(*plan(blob))


def _check_ours(path: Path, marked: Path) -> None:
    """Nothing is there, or what this module wrote."""
    if path.exists() or path.is_symlink():
        ours = marked.is_file() and marked.read_bytes().startswith(MARK.encode())
        if not ours or path.is_symlink():
            raise CluinferError(
                f"{path}: there is something that cluinfer did not write; it stays: choose another place"
            )


def _check_same(artifact: Artifact, copy: Path) -> None:
    if read_artifact(copy).manifest != artifact.manifest:
        raise ArtifactError(f"{artifact.path}: the file has changed while it was copied; do it again")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CluinferError(f"{folder}: cannot write a model there: {error.strerror or error}") from error
