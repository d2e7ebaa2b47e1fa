"""Makes `golden_cases` and `benchmarks` importable from every test, and builds the artifact that many of them share.

Both folders go to the end of the path: an installed cluinfer must win over the checkout,
and `tests/cluinfer` must never be taken for the package.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

if sys.path[0] == str(TESTS.parent):  # `python -m pytest`
    sys.path.pop(0)
sys.path += [str(TESTS.parent), str(TESTS)]


@dataclass(frozen=True)
class BuiltModel:
    """What `cluinfer build` made of a small Context Cluster with named classes, and what it printed.

    The folder holds model.pt, model.clu, model.onnx (its graph), names.txt, and pictures: three, and one that is none.
    It is everybody's: write elsewhere.
    """

    folder: Path
    out: str
    err: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / "model.pt"

    @property
    def artifact(self) -> Path:
        return self.folder / "model.clu"

    @property
    def graph(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"


@pytest.fixture(scope="session")
def built_model(tmp_path_factory: pytest.TempPathFactory) -> BuiltModel:
    torch = pytest.importorskip("torch")
    pytest.importorskip("openvino")
    import golden_cases
    import numpy as np
    from PIL import Image

    from cluinfer.artifact import read_artifact
    from cluinfer.cli import main
    from cluinfer.export.models import build
    from cluinfer.export.models.config import config

    folder = tmp_path_factory.mktemp("built")
    model = build(config("coc", (1, 1), (16, 24), (1, 1), 24, (2, 2), (2, 1), (2, 2), num_classes=3))
    golden_cases.fill(model, "coc")
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "names.txt").write_text("cat\ndog\nhorse\n", encoding="utf-8")
    (folder / "pictures").mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(folder / "pictures" / name)
    (folder / "pictures" / "damaged.png").write_bytes(b"no picture")
    out, err = io.StringIO(), io.StringIO()
    command = ["build", str(folder / "model.pt"), "--size", "32", "--evidence", "2", "--threads", "1"]
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*command, "--classes", str(folder / "names.txt"), "--pictures", str(folder / "pictures")])
    assert code == 0, err.getvalue()
    (folder / "model.onnx").write_bytes(read_artifact(folder / "model.clu").graph())
    return BuiltModel(folder, out.getvalue(), err.getvalue())
