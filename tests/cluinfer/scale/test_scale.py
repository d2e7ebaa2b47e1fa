"""Ray, for real: a cluster of two CPUs here, one for all tests of this file."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from conftest import BuiltModel

from cluinfer.errors import CluinferError, NotShownError
from cluinfer.graph import ClusterOutput
from cluinfer.runtime import Runtime

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("pyarrow")

from cluinfer.cli import main  # noqa: E402
from cluinfer.scale import Columns, Packed, packed, predict_dataset, predict_files  # noqa: E402
from cluinfer.scale.columns import smallest  # noqa: E402
from cluinfer.scale.files import part_name  # noqa: E402


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Workers put the driver's folder before the installed packages: in the checkout they would find cluinfer's sources,
    # without the native operators.
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("driver"))
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    os.chdir(before)


def paths(model: BuiltModel) -> list[str]:
    return [str(model.pictures / name) for name in ("a.png", "b.jpg", "c.png", "damaged.png")]


def test_pictures_in_every_form_are_what_the_runtime_says(built_model: BuiltModel, cluster: None) -> None:
    from PIL import Image

    columns = Columns(top=2, logits=True, evidence=True)
    a, b, _, damaged = paths(built_model)
    by_path = [{"path": each, "id": i} for i, each in enumerate((a, damaged, b, str(built_model.folder / "none.png")))]
    content = Path(b).read_bytes()
    by_bytes = [{"bytes": each, "id": i} for i, each in enumerate((content, b"GIF89a", content[:300], b"", None))]
    by_array = [{"image": np.asarray(Image.open(a).convert("RGB")), "id": i} for i in range(3)]
    with Runtime(built_model.artifact, threads=1) as runtime:
        wanted = {name: runtime(name) for name in (a, b)}
        layout = packed(runtime.promise, columns)
        maps = runtime.promise.maps
    assert any(layout[f"clusters/{each.alias or each.layer}"].dtype == "|u1" for each in maps)
    forms = ((by_path, (a, None, b, None)), (by_bytes, (b, None, None, None, None)), (by_array, (a, a, a)))
    for given, served in forms:
        made = predict_dataset(ray.data.from_items(given), built_model.artifact, columns=columns, batch=2)
        rows = sorted(made.take_all(), key=lambda row: row["id"])
        assert [row["id"] for row in rows] == list(range(len(given)))
        for row, name in zip(rows, served, strict=True):
            assert ("path" in row) == (given is by_path) and "bytes" not in row and "image" not in row
            if name is None:
                assert "picture" in row["error"]
                assert row["classes"] is None and row["logits"] is None and row["evidence"] is None
                continue
            prediction = wanted[name]
            best = prediction.top(2)
            assert row["error"] is None
            assert list(row["classes"]) == [each.index for each in best]
            assert list(row["names"]) == [each.name for each in best]
            np.testing.assert_array_equal(row["scores"], np.float32([each.probability for each in best]))
            np.testing.assert_array_equal(row["logits"], prediction.logits)
            for each in maps:
                column = f"clusters/{each.alias or each.layer}"
                np.testing.assert_array_equal(layout[column].array(row[column]), prediction.clusters[each.layer].ids)
            np.testing.assert_array_equal(layout["evidence"].array(row["evidence"]), prediction.evidence)
            np.testing.assert_array_equal(row["evidence_classes"], prediction.evidence_classes)


def test_what_is_wrong_is_said_before_an_actor_is_made(built_model: BuiltModel) -> None:
    with pytest.raises(NotShownError, match="no cluster map 'stage9'"):
        predict_dataset(None, built_model.artifact, columns=Columns(maps=("stage9",)))
    with pytest.raises(CluinferError, match="cpus must be a positive number"):
        predict_dataset(None, built_model.artifact, cpus=0)
    with pytest.raises(CluinferError, match="top 0 classes"):
        Columns(top=0)


@pytest.mark.parametrize(("grid", "dtype"), [((16, 16), "|u1"), ((16, 17), "<u2"), ((256, 257), "<u4")])
def test_ids_take_the_smallest_type_that_holds_them(grid: tuple[int, int], dtype: str) -> None:
    output = ClusterOutput("layer", "stage1", False, 1, 1, (1, 1), grid, (2, 3))
    assert smallest(output) == dtype
    last = grid[0] * grid[1] - 1
    ids = np.full((1, 2, 3), last)
    np.testing.assert_array_equal(Packed(dtype, (1, 2, 3)).array(ids.astype(dtype).tobytes()), ids)


def table(folder: Path) -> Any:
    """The folder as any reader sees it."""
    from pyarrow import parquet

    return parquet.read_table(folder)


def test_a_killed_actor_loses_and_doubles_nothing(built_model: BuiltModel, cluster: None, tmp_path: Path) -> None:
    pictures = [*paths(built_model), *paths(built_model)] * 150
    killed: list[int] = []

    def kill() -> None:
        """The first actor that has written a part, while others are to come."""
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            if (tmp_path / "out" / part_name(1)).exists():
                for pid in actors():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.005)

    killer = Thread(target=kill)
    killer.start()
    done = predict_files(pictures, built_model.artifact, tmp_path / "out", rows=40, actors=1)
    killer.join()
    assert killed
    assert (done.parts, done.done, done.rows, done.failed) == (30, 30, 1200, 300)
    once = predict_files(pictures, built_model.artifact, tmp_path / "once", rows=600, actors=1)
    assert once.rows == 1200
    assert table(tmp_path / "out").equals(table(tmp_path / "once"))
    assert table(tmp_path / "out").column("path").to_pylist() == pictures
    assert not [each.name for each in (tmp_path / "out").iterdir() if each.name.startswith(".")]


def actors() -> list[int]:
    """The processes of our cluster's actors."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            title = (folder / "cmdline").read_bytes()
            if folder.name.isdecimal() and b"ray::MapWorker" in title and descends(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def descends(pid: int) -> bool:
    """Whether it is a process of this one's."""
    while pid > 1 and pid != os.getpid():
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


def test_finished_files_are_not_done_again(built_model: BuiltModel, cluster: None, tmp_path: Path) -> None:
    pictures = paths(built_model) * 2
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "._job.json.0a.tmp").touch()  # of a job that was killed while it wrote this
    first = predict_files(pictures, built_model.artifact, folder, rows=3, actors=1)
    assert (first.parts, first.rows, first.failed) == (3, 8, 2)
    before = {each.name: each.stat().st_mtime_ns for each in folder.glob("*.parquet")}
    (folder / part_name(1)).unlink()
    (folder / ".part-000001-0.tmp").write_bytes(b"half")
    seen: list[int] = []
    again = predict_files(
        pictures, built_model.artifact, folder, rows=3, actors=1, progress=lambda now: seen.append(now.done)
    )
    assert (again.done, again.rows, again.failed, seen) == (3, 3, 1, [3])
    after = {each.name: each.stat().st_mtime_ns for each in folder.glob("*.parquet")}
    assert {name for name in after if after[name] != before[name]} == {part_name(1)}
    assert sorted(each.name for each in folder.iterdir()) == ["_job.json", *(part_name(i) for i in range(3))]
    said = json.loads(table(folder).schema.metadata[b"cluinfer.packed"])
    assert said.keys() == {name for name in table(folder).column_names if name.startswith("clusters/")}
    with pytest.raises(CluinferError, match="holds another job, of other pictures"):
        predict_files(pictures[:4], built_model.artifact, folder, rows=3)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    with pytest.raises(CluinferError, match=r"holds 'mine.txt'"):
        predict_files(pictures, built_model.artifact, tmp_path / "foreign")


def test_the_command(
    built_model: BuiltModel, cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(built_model.artifact), f"{built_model.pictures}/*", "--ray", "--threads", "1"]
    out = tmp_path / "out.parquet"
    assert main([*command, "-o", str(out), "--columns", "none", "--rows", "2"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 2 files; 4 pictures predicted, 1 not served\n"
    assert "2 of 2 files, 4 pictures, 1 not served" in printed.err
    assert table(out).column_names == ["path", "error", "classes", "scores", "names"]
    assert main([*command, "-o", str(out), "--columns", "none", "--rows", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predicted"] == 0
    for wrong, message in (
        ([], "say where, with -o FOLDER"),
        (["-o", str(out), "--columns", "colours"], "--columns colours: wanted logits, maps"),
        (["-o", str(out), "--report", "x.html"], "--report does not go with --ray"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["predict", str(built_model.artifact), "x.png", "-o", "out"]) == 2
    assert "--output goes with --ray" in capsys.readouterr().err


def test_workers_import_nothing_from_where_the_pictures_are(built_model: BuiltModel, tmp_path: Path) -> None:
    """A cluster of the command's own, so in a process of its own."""
    for name in ("numpy.py", "cluinfer.py"):
        (tmp_path / name).write_text("raise SystemExit('from anyone')")
    (tmp_path / "a.png").symlink_to(built_model.pictures / "a.png")
    script = tmp_path / "elsewhere" / "run.py"
    script.parent.mkdir()
    script.write_text("import sys\nfrom cluinfer.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    arguments = ["predict", str(built_model.artifact), "a.png", "--ray", "-o", "out", "--json"]
    command = [sys.executable, str(script), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["predicted"] == 1


def test_ray_is_imported_only_when_it_is_used() -> None:
    code = "import sys, cluinfer.cli, cluinfer.scale; print(sorted({'ray', 'pyarrow', 'pandas'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert io.StringIO(ran.stdout).read() == "[]\n"
