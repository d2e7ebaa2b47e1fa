"""The cluster operators as TensorRT plugins, for TensorRT 10.9 and later: our kernels, embedded in the engine as PTX.

They are needed to build an engine, never to run it: it holds the kernels, their grids, and nothing of Python. TensorRT
calls these functions for shapes and types, and once for every node and type that it tries, to be given a kernel.

TensorRT calls this interface experimental. What it wants, and this follows: annotations that are types, so none
postponed; every attribute declared by every `aot_impl`; no default for any; shapes that are symbols while it plans; a
kernel that takes inputs, then outputs. When it asks for a kernel, a side is a number if the symbol is (`is_constant`),
or if it is the same in all of the profile: TensorRT need not see through every way to compute a shape.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluinfer.engines.trt.graph import Call
from cluinfer.errors import CluinferError, EngineError
from cluinfer.native.cuda import Kernel, Shape


@dataclass
class Building:
    """What is being built: for which GPU, with which kernels at hand, and what went wrong inside a callback."""

    target: str
    kernels: Mapping[str, bytes] = field(default_factory=dict)
    used: dict[str, Kernel] = field(default_factory=dict)  # by the sha256 of their source
    error: CluinferError | None = None


_building: list[Building] = []
_registered: list[str] = []


@contextmanager
def building(target: str, kernels: Mapping[str, bytes]) -> Iterator[Building]:
    """Registers the plugins, and gives them kernels for this target while it lasts. An error of theirs is raised."""
    if not _registered:
        _register()
        _registered.append("once a process")
    state = Building(target, kernels)
    _building.append(state)
    try:
        yield state
    except CluinferError as error:  # TensorRT only knows that a callback failed
        if state.error is not None and error is not state.error:
            raise state.error from error
        raise
    finally:
        _building.pop()


Side = tuple[Any, int]  # of which tensor, and which


def _launch(trtp: Any, operator: str, groups: Any, sides: tuple[Side, Side, Side], half: bool, **more: Any) -> Any:
    """What `aot_impl` gives: the kernel's name, its PTX, its grid, and that it takes no other arguments."""
    state = _building[-1] if _building else None
    try:
        if state is None:
            raise EngineError("TensorRT asks for a cluinfer kernel while cluinfer builds nothing")
        call = Call(operator, Shape(*map(_number, sides)), half, **more)
        kernel = call.kernel()
        launch = trtp.KernelLaunchParams(grid_x=groups * kernel.blocks, block_x=kernel.threads)
        return kernel.entry, _ptx(state, kernel), launch, trtp.SymIntExprs(0)
    except CluinferError as error:
        if state is not None:
            state.error = error
        raise


def _number(side: Side) -> int:
    tensor, axis = side
    symbol = tensor.shape_expr[axis]
    if not symbol.is_fake and symbol.is_constant:
        return int(symbol.constant_value())
    if tensor.has_shape:
        shape = tensor.shape
        least, most = (shape.min[axis], shape.max[axis]) if shape.is_dynamic else (shape[axis], shape[axis])
        if least == most:
            return int(least)
    raise EngineError(
        "a cluster operator has channels, points or centres that are no constants: export the graph for a fixed "
        "size, or build with --no-plugins"
    )


def _ptx(state: Building, kernel: Kernel) -> bytes:
    """At hand, or compiled here."""
    name = hashlib.sha256(kernel.source.encode()).hexdigest()
    state.used[name] = kernel
    if name in state.kernels:
        return state.kernels[name]
    from cluinfer.native.cuda.nvrtc import compile_ptx

    return compile_ptx(kernel, state.target)


def _register() -> None:
    import tensorrt as trt
    import tensorrt.plugin as trtp
    from tensorrt.plugin import AutoTuneCombination, KernelLaunchParams, SymIntExprs, TensorDesc

    Made = tuple[str | bytes, str | bytes, KernelLaunchParams, SymIntExprs]
    both = "FP32|FP16"

    def types(*each: str) -> Any:
        return [AutoTuneCombination(", ".join(each), "LINEAR")]

    def half(tensor: Any) -> bool:
        return bool(tensor.dtype == trt.float16)

    @trtp.register("cluinfer::ClusterAssign")  # type: ignore[untyped-decorator]
    def assign_outputs(
        points: TensorDesc, centers: TensorDesc, alpha: float, beta: float, sigmoid: int
    ) -> tuple[TensorDesc, TensorDesc]:
        shape = (points.shape_expr[0], points.shape_expr[2])
        return trtp.from_shape_expr(shape, dtype=trt.int32), trtp.from_shape_expr(shape, dtype=points.dtype)

    @trtp.autotune("cluinfer::ClusterAssign")  # type: ignore[untyped-decorator]
    def assign_types(
        points: TensorDesc, centers: TensorDesc, outputs: tuple[TensorDesc, TensorDesc]
    ) -> list[AutoTuneCombination]:
        return types(both, both, "INT32", both)

    @trtp.aot_impl("cluinfer::ClusterAssign")  # type: ignore[untyped-decorator]
    def assign_kernel(
        points: TensorDesc,
        centers: TensorDesc,
        alpha: float,
        beta: float,
        sigmoid: int,
        outputs: tuple[TensorDesc, TensorDesc],
        tactic: int,
    ) -> Made:
        sides = ((points, 1), (points, 2), (centers, 2))
        attributes = {"alpha": alpha, "beta": beta, "sigmoid": bool(sigmoid)}
        return _launch(trtp, "ClusterAssign", points.shape_expr[0], sides, half(points), **attributes)

    def scatter(values: Any, base: Any, weighted: bool) -> Any:
        sides = ((values, 1), (values, 2), (base, 2))
        return _launch(trtp, "ClusterScatter", values.shape_expr[0], sides, half(values), weighted=weighted)

    @trtp.register("cluinfer::ClusterScatter")  # type: ignore[untyped-decorator]
    def scatter_outputs(values: TensorDesc, index: TensorDesc, base: TensorDesc) -> TensorDesc:
        return base.like()

    @trtp.autotune("cluinfer::ClusterScatter")  # type: ignore[untyped-decorator]
    def scatter_types(
        values: TensorDesc, index: TensorDesc, base: TensorDesc, outputs: tuple[TensorDesc]
    ) -> list[AutoTuneCombination]:
        return types(both, "INT32", both, both)

    @trtp.aot_impl("cluinfer::ClusterScatter")  # type: ignore[untyped-decorator]
    def scatter_kernel(
        values: TensorDesc, index: TensorDesc, base: TensorDesc, outputs: tuple[TensorDesc], tactic: int
    ) -> Made:
        return scatter(values, base, False)

    @trtp.register("cluinfer::ClusterScatterWeighted")  # type: ignore[untyped-decorator]
    def weighted_scatter_outputs(
        values: TensorDesc, index: TensorDesc, base: TensorDesc, weight: TensorDesc
    ) -> TensorDesc:
        return base.like()

    @trtp.autotune("cluinfer::ClusterScatterWeighted")  # type: ignore[untyped-decorator]
    def weighted_scatter_types(
        values: TensorDesc, index: TensorDesc, base: TensorDesc, weight: TensorDesc, outputs: tuple[TensorDesc]
    ) -> list[AutoTuneCombination]:
        return types(both, "INT32", both, both, both)

    @trtp.aot_impl("cluinfer::ClusterScatterWeighted")  # type: ignore[untyped-decorator]
    def weighted_scatter_kernel(
        values: TensorDesc,
        index: TensorDesc,
        base: TensorDesc,
        weight: TensorDesc,
        outputs: tuple[TensorDesc],
        tactic: int,
    ) -> Made:
        return scatter(values, base, True)

    def gathered(centers: Any, index: Any) -> Any:
        shape = (centers.shape_expr[0], centers.shape_expr[1], index.shape_expr[1])
        return trtp.from_shape_expr(shape, dtype=centers.dtype)

    def gather(centers: Any, index: Any, weighted: bool) -> Any:
        sides = ((centers, 1), (index, 1), (centers, 2))
        return _launch(trtp, "ClusterGather", centers.shape_expr[0], sides, half(centers), weighted=weighted)

    @trtp.register("cluinfer::ClusterGather")  # type: ignore[untyped-decorator]
    def gather_outputs(centers: TensorDesc, index: TensorDesc) -> TensorDesc:
        return gathered(centers, index)

    @trtp.autotune("cluinfer::ClusterGather")  # type: ignore[untyped-decorator]
    def gather_types(centers: TensorDesc, index: TensorDesc, outputs: tuple[TensorDesc]) -> list[AutoTuneCombination]:
        return types(both, "INT32", both)

    @trtp.aot_impl("cluinfer::ClusterGather")  # type: ignore[untyped-decorator]
    def gather_kernel(centers: TensorDesc, index: TensorDesc, outputs: tuple[TensorDesc], tactic: int) -> Made:
        return gather(centers, index, False)

    @trtp.register("cluinfer::ClusterGatherWeighted")  # type: ignore[untyped-decorator]
    def weighted_gather_outputs(centers: TensorDesc, index: TensorDesc, weight: TensorDesc) -> TensorDesc:
        return gathered(centers, index)

    @trtp.autotune("cluinfer::ClusterGatherWeighted")  # type: ignore[untyped-decorator]
    def weighted_gather_types(
        centers: TensorDesc, index: TensorDesc, weight: TensorDesc, outputs: tuple[TensorDesc]
    ) -> list[AutoTuneCombination]:
        return types(both, "INT32", both, both)

    @trtp.aot_impl("cluinfer::ClusterGatherWeighted")  # type: ignore[untyped-decorator]
    def weighted_gather_kernel(
        centers: TensorDesc, index: TensorDesc, weight: TensorDesc, outputs: tuple[TensorDesc], tactic: int
    ) -> Made:
        return gather(centers, index, True)
