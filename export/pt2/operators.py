"""The operators that a program from a file may call.

torch finds a call's target by walking attributes from `torch`, `math` or `_operator`, so a name such as
`torch.os.system` would be found, and called. Only what is listed here passes: pure arithmetic on tensors, as image
models use it and ONNX has it. Left out on purpose: what touches files (`from_file`), hands out raw or unchecked memory
(`set_`, the unchecked sparse constructors, `_unsafe_index`), or depends on chance (`rand`, `bernoulli`).
"""

from __future__ import annotations

import re

import torch

import cluinfer.export.torch_ops  # noqa: F401 - registers torch.ops.cluinfer
from cluinfer.export.pt2.check import WrongError, show

GRAD_MODE = "torch.ops.higher_order.wrap_with_set_grad_enabled"  # `with torch.no_grad()` in a model: does nothing here

CLUINFER = frozenset({"cluster_assign", "cluster_scatter", "cluster_gather"})

# Operators on batch sizes, before they are known
_ARITHMETIC = "add sub mul floordiv truediv mod neg pos eq ne lt le gt ge and_ or_"
_SYMBOLIC = "sym_max sym_min sym_not sym_int sym_float sym_ite"
SIZES = frozenset(
    ["math.trunc", *(f"_operator.{op}" for op in _ARITHMETIC.split()), *(f"torch.{op}" for op in _SYMBOLIC.split())]
)

# By base name; each with all its overloads, and in place (`relu_`). A call that writes into an `out` does not pass.
_ATEN = """
abs acos acosh adaptive_avg_pool1d _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d add
addbmm addcdiv addcmul addmm addmv addr alias all alpha_dropout amax amin aminmax any arange argmax argmin argsort asin
asinh _assert_scalar _assert_tensor_metadata atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d
avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_tensors broadcast_to
cat ceil celu channel_shuffle chunk clamp clamp_max clamp_min clip clone col2im concat concatenate constant_pad_nd
contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d _convolution convolution copy cos
cosh cosine_similarity cross cumprod cumsum deg2rad detach diag diag_embed diagonal diff div divide dot dropout einsum
elu embedding eq erf erfc exp exp2 expand expand_as expm1 eye feature_dropout fill flatten flip floor floor_divide fmod
frac full full_like gather ge gelu glu greater greater_equal grid_sampler grid_sampler_2d group_norm gt hardshrink
hardsigmoid hardswish hardtanh heaviside im2col index index_add index_copy index_fill index_put index_select inner
instance_norm isclose isfinite isin isinf isnan kron layer_norm le leaky_relu lerp less less_equal lift_fresh_copy
linalg_cross linalg_norm linalg_vecdot linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid _log_softmax
log_softmax logaddexp logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul matrix_H max
max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean meshgrid min minimum mish mm movedim mT mul
multiply mv nan_to_num narrow native_batch_norm _native_batch_norm_legit_no_training native_group_norm native_layer_norm
ne neg negative new_full new_ones new_zeros norm not_equal numpy_T one_hot ones ones_like outer pad permute
pixel_shuffle pixel_unshuffle positive pow prelu prod rad2deg reciprocal reflection_pad1d reflection_pad2d
reflection_pad3d relu relu6 remainder repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
reshape reshape_as rms_norm roll rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add
scatter_reduce select select_scatter selu _shape_as_tensor sigmoid sign silu sin sinh slice slice_scatter _softmax
softmax softplus softshrink sort split split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes
swapdims sym_constrain_range sym_constrain_range_for_size sym_size t take_along_dim tan tanh tensor_split tensordot
threshold tile to _to_copy topk transpose tril triu true_divide trunc type_as unbind unflatten unfold _unsafe_view
unsqueeze upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa upsample_nearest1d
upsample_nearest2d _upsample_nearest_exact2d var var_mean view view_as where xlogy zero zeros zeros_like
"""
ATEN = frozenset(_ATEN.split())

_ATEN_OR_OURS = re.compile(r"torch\.ops\.(aten|cluinfer)\.(\w{1,100})\.(\w{1,100})", re.ASCII)


def operator(value: object, where: str) -> str:
    """The name of the operator as it is, if it is one of those above."""
    if not isinstance(value, str):
        raise WrongError(f"{where}: wanted the name of an operator, found {show(value)}")
    if value in SIZES or value == GRAD_MODE:
        return value
    parts = _ATEN_OR_OURS.fullmatch(value)
    if parts and _is_listed(parts[1], parts[2]) and _takes_no_out(parts[1], parts[2], parts[3]):
        return value
    raise WrongError(
        f"calls {show(value)}, which is not among the operators that are read from files; where the model's code is, "
        "give the model itself to cluinfer.export.to_onnx instead"
    )


def _is_listed(namespace: str, name: str) -> bool:
    return name in CLUINFER if namespace == "cluinfer" else name in ATEN or (name[-1] == "_" and name[:-1] in ATEN)


def _takes_no_out(namespace: str, name: str, overload: str) -> bool:
    """Whether this overload is there (a class or method of the operator is none) and writes into no `out`."""
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():  # type: ignore[no-untyped-call]
        return False
    found = getattr(packet, overload)
    return isinstance(found, torch._ops.OpOverload) and not any(part.is_out for part in found._schema.arguments)
