"""What may be asked of TensorRT beyond what every engine takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cluinfer.errors import EngineError

Profile = tuple[int, int, int]
MOST = 1 << 16  # images of a call
_WANTED = "wanted a number of images such as 8, or MIN:OPT:MAX such as 1:8:64"


@dataclass(frozen=True)
class Settings:
    """How to build an engine.

    profile: least, usual and most images of a call; None: one to Options.batch. plugins: None leaves it to TensorRT's
    version. workspace: MiB that a layer may use at most. kernels: PTX by the sha256 of its source, instead of NVRTC.
    progress: is told what TensorRT is doing.
    """

    profile: Profile | None = None
    plugins: bool | None = None
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    kernels: Mapping[str, bytes] = field(default_factory=dict)
    progress: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.workspace is not None and not 1 <= self.workspace <= 1 << 20:
            raise EngineError(f"workspace must be from 1 to {1 << 20} MiB, got {self.workspace}")


def parse_batch(text: str) -> tuple[int, Profile | None]:
    """What --batch says: the batch to compile for, and the profile if it is one."""
    parts = text.split(":")
    try:
        numbers = [int(part) for part in parts]
    except ValueError as error:
        raise EngineError(f"--batch {text:.60}: {_WANTED}") from error
    if len(numbers) == 1:
        return numbers[0], None
    if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2] <= MOST:
        raise EngineError(f"--batch {text:.60}: {_WANTED}, in rising order")
    return numbers[1], (numbers[0], numbers[1], numbers[2])
