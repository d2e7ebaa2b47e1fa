"""The graphs that the benchmarks compare, made once and kept: the published one and ours, of the same weights.

They lie in $CLUINFER_BENCHMARKS, or cluinfer-benchmarks in the user's cache folder; exporting the published formulation
takes minutes. A file is named after what it depends on, so that another version of torch makes another.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = 1000


def folder() -> Path:
    base = os.environ.get("CLUINFER_BENCHMARKS")
    path = (
        Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cluinfer-benchmarks"
    )
    path.mkdir(parents=True, exist_ok=True)
    return path


def published(arch: str, size: int = 224) -> Any:
    """The published formulation with random weights, the same ones every time."""
    import torch

    from benchmarks import published as code

    torch.manual_seed(0)
    return code.build(arch, CLASSES).eval()


def published_onnx(arch: str, size: int = 224) -> Path:
    """Its export by torch.onnx, batch free."""

    def export(path: Path) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                published(arch, size),
                (torch.zeros(2, 3, size, size),),
                str(path),
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )

    return _kept(f"published-{arch}-{size}", ("benchmarks/published",), export)


def our_onnx(arch: str, size: int = 224) -> Path:
    """Our export of the same weights, without cluster maps, as the published one has none."""

    def export(path: Path) -> None:
        from dataclasses import replace

        from cluinfer.export import to_onnx
        from cluinfer.export.models import build
        from cluinfer.export.models import published as configuration

        model = build(replace(configuration(arch), num_classes=CLASSES)).eval()
        model.load_state_dict(published(arch).state_dict())
        path.write_bytes(to_onnx(model, size, maps="none").SerializeToString())

    return _kept(f"ours-{arch}-{size}", ("export", "cluinfer/ops"), export)


def _kept(name: str, sources: tuple[str, ...], export: Callable[[Path], None]) -> Path:
    import torch

    root = Path(__file__).parent.parent
    files = sorted(path for source in sources for path in (root / source).rglob("*.py"))
    digest = hashlib.sha256(b"".join([torch.__version__.encode(), *(path.read_bytes() for path in files)])).hexdigest()
    path = folder() / f"{name}-{digest[:12]}.onnx"
    if not path.exists():
        print(f"exporting {name} ...", flush=True)
        with tempfile.TemporaryDirectory(dir=folder()) as scratch:
            made = Path(scratch) / "model.onnx"
            export(made)
            made.replace(path)
    return path
