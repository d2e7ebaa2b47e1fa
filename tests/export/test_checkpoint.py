"""Checkpoint files in every form, and every way that one can be wrong: each with its own message."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from cluinfer.errors import CheckpointError
from cluinfer.export.checkpoint import read_state_dict

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


def saved(folder: Path, held: Any, name: str = "model.pt") -> Path:
    torch.save(held, folder / name)
    return folder / name


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_state_dict(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "held",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"state_dict_ema": STATE},
        {"model": {f"module.{key}": value for key, value in STATE.items()}},
        {f"module._orig_mod.{key}": value for key, value in STATE.items()},
        {"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9), "old": np.float32(1)},
        {key: value.double() if value.is_floating_point() else value for key, value in STATE.items()},
        {key: value.bfloat16() if value.is_floating_point() else value for key, value in STATE.items()},
        {key: nn.Parameter(value) if value.is_floating_point() else value for key, value in STATE.items()},
    ],
    ids=[
        "raw",
        "ordered",
        "state_dict",
        "model",
        "ema",
        "module",
        "compiled",
        "options",
        "double",
        "bfloat16",
        "parameter",
    ],
)
def test_every_form_gives_the_same_parameters(tmp_path: Path, held: Any) -> None:
    read = read_state_dict(saved(tmp_path, held))
    assert list(read) == list(STATE)
    assert read["a.weight"].dtype == torch.float32
    assert torch.equal(read["a.weight"], STATE["a.weight"])
    assert read["a.count"] == 3


def test_the_old_file_format_and_safetensors(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    for name in ("old.pth", "model.safetensors"):
        assert torch.equal(read_state_dict(tmp_path / name)["a.weight"], STATE["a.weight"])


def test_state_dict_comes_before_its_average(tmp_path: Path) -> None:
    average = {key: value + 1 for key, value in STATE.items()}
    read = read_state_dict(saved(tmp_path, {"state_dict_ema": average, "state_dict": STATE}))
    assert torch.equal(read["a.weight"], STATE["a.weight"])


def test_missing_folder_and_empty_files(tmp_path: Path) -> None:
    assert "wanted a checkpoint file, found nothing" in refused(tmp_path / "none.pt")
    assert "wanted a checkpoint file, found a folder" in refused(tmp_path)
    (tmp_path / "empty.pt").touch()
    assert "the file is empty" in refused(tmp_path / "empty.pt")


class Malicious:
    """Unpickling this would leave a folder behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": STATE, "extra": Malicious(mark)}, path, _use_new_zipfile_serialization=zipped)
    assert "holds Python objects (posix.mkdir)" in refused(path)
    path.write_bytes(pickle.dumps(Malicious(mark)))
    refused(path)
    assert not mark.exists()


def test_a_pickled_module(tmp_path: Path) -> None:
    message = refused(saved(tmp_path, nn.Linear(2, 2)))
    assert "holds Python objects (torch.nn.modules.linear.Linear) besides tensors, which are never loaded" in message
    assert "torch.save(model.state_dict(), ...)" in message


@pytest.mark.parametrize("size", [1, 3, 40, 500, -30, -1])
def test_truncated_files(tmp_path: Path, size: int) -> None:
    path = saved(tmp_path, STATE)
    path.write_bytes(path.read_bytes()[:size])
    assert "truncated or damaged" in refused(path) or "not a PyTorch checkpoint, or damaged" in refused(path)


def test_damaged_bytes_never_escape_as_other_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path, STATE).read_bytes()
    random = np.random.default_rng(0)
    messages = []
    for trial in range(60):
        broken = bytearray(whole)
        for position in random.integers(0, len(whole), 8):
            broken[position] ^= int(random.integers(1, 256))
        path = tmp_path / f"{trial}.pt"
        path.write_bytes(broken)
        try:
            read_state_dict(path)  # the damage may have missed everything that counts
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) >= 30
    assert [message for message in messages if "\n" in message] == []


def test_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    text = tmp_path / "text.pt"
    text.write_text("hello, this is text\n" * 50)
    assert "not a PyTorch checkpoint" in refused(text)
    archive = tmp_path / "archive.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    assert "a zip file, but not a PyTorch checkpoint" in refused(archive)
    assert "holds a list, wanted a state dict" in refused(saved(tmp_path, [1, 2]))
    assert "no state dict found" in refused(saved(tmp_path, {}))
    assert "(keys: epoch, net)" in refused(saved(tmp_path, {"epoch": 3, "net": STATE}))
    assert "(keys: a, b)" in refused(saved(tmp_path, {"a": torch.zeros(1), "b": "text"}))
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    assert "not a readable .safetensors file" in refused(tmp_path / "bad.safetensors")


def test_programs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as file:  # as torch.jit.save lays it out
        file.writestr("script/code/__torch__.py", "")
        file.writestr("script/data.pkl", b"")
    assert "a TorchScript program, wanted its parameters" in refused(path)
    exported = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(exported, tmp_path / "program.pt2")
    (tmp_path / "program.pt2").rename(tmp_path / "program.pt")
    assert "a torch.export program" in refused(tmp_path / "program.pt")


def test_a_tensor_that_claims_more_than_was_stored(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(1).expand(10**9, 10**6)})
    assert "a claims shape [1000000000, 1000000] but the file stores less than that" in refused(path)


def test_one_storage_under_many_names(tmp_path: Path) -> None:
    shared = torch.zeros(2**20, dtype=torch.half)
    message = refused(saved(tmp_path, {f"a{i}": shared for i in range(60)}))
    assert "claims 240 MiB of parameters, far more than the file stores" in message


def test_parameters_that_are_not_finite(tmp_path: Path) -> None:
    message = refused(saved(tmp_path, {"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}))
    assert message.endswith("b holds NaN or infinite numbers; its training went astray")


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb/data.pkl", b"\0" * 2**24)
    assert "unpacks to more than twice its size" in refused(path)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
    ],
    ids=["complex", "sparse", "quantized"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_plain_numbers(tmp_path: Path, value: torch.Tensor) -> None:
    message = refused(saved(tmp_path, {"a": value}))
    assert "a is not a plain tensor of numbers" in message or "besides tensors" in message


def test_a_parameter_twice(tmp_path: Path) -> None:
    assert "a is there twice" in refused(saved(tmp_path, {"a": torch.zeros(1), "module.a": torch.zeros(1)}))
