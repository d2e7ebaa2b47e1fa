"""The operators as ONNX functions made of standard operators (opset 18): any runtime can run them.

Written in ONNX's own text syntax, so that this file needs no `onnx` until `functions()` is called.
What the bodies owe to measured behaviour:
- The sigmoid is spelled 1 / (1 + exp(-t)): ONNX Runtime's Sigmoid is not monotonic in its last bits and reaches
  1.0000001, which moves an argmax.
- It sits in an If on the attribute: ONNX Runtime and OpenVINO fold that away (a Where costs 60 % more on a pool).
- NaN is settled per point and per centre, not on the M x N similarities: engines disagree on ArgMax over NaN.
- Sums go through ScatterElements, not through a one-hot product: 0 * NaN would spread one point's NaN to all centres.
- The branches of the If name no dimensions: the same symbol in every call misleads ONNX Runtime's buffer planning.
- A function cannot ask whether an optional input is there, so the body follows the number of inputs in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluinfer.ops.schema import DOMAIN, EPSILON, OPERATORS, VERSION

if TYPE_CHECKING:
    import onnx

OPSET = 18

_ASSIGN = f"""
{{
  alpha_value = Constant <value_float: float = @alpha> ()
  beta_value = Constant <value_float: float = @beta> ()
  sigmoid_value = Constant <value_int: int = @sigmoid> ()
  use_sigmoid = Cast <to = 9> (sigmoid_value)
  epsilon = Constant <value_float = {EPSILON}> ()
  axis1 = Constant <value_ints = [1]> ()
  axis2 = Constant <value_ints = [2]> ()
  point = Cast <to = 1> (points)
  point_norm = ReduceL2 (point, axis1)
  point_scale = Max (point_norm, epsilon)
  point_unit = Div (point, point_scale)
  center = Cast <to = 1> (centers)
  center_norm = ReduceL2 (center, axis1)
  center_scale = Max (center_norm, epsilon)
  center_unit = Div (center, center_scale)
  center_rows = Transpose <perm = [0, 2, 1]> (center_unit)
  cosine = MatMul (center_rows, point_unit)
  scaled = Mul (cosine, alpha_value)
  shifted = Add (scaled, beta_value)
  s = If (use_sigmoid) <
    then_branch = with_sigmoid () => (float[?, ?, ?] squashed) {{
      negated = Neg (shifted)
      power = Exp (negated)
      one = Constant <value_float = 1.0> ()
      denominator = Add (power, one)
      squashed = Reciprocal (denominator)
    }},
    else_branch = without_sigmoid () => (float[?, ?, ?] plain) {{ plain = Identity (shifted) }}
  >
  best = ArgMax <axis = 1, keepdims = 1, select_last_index = 0> (s)
  center_sum = ReduceSum (center_unit, axis1)
  center_nan = IsNaN (center_sum)
  center_nan_value = Cast <to = 7> (center_nan)
  any_center_nan_value = ReduceMax (center_nan_value, axis2)
  any_center_nan = Cast <to = 9> (any_center_nan_value)
  first_center_nan = ArgMax <axis = 2, keepdims = 1, select_last_index = 0> (center_nan_value)
  point_sum = ReduceSum (point_unit, axis1)
  point_nan = IsNaN (point_sum)
  zero = Constant <value_int = 0> ()
  of_finite_point = Where (any_center_nan, first_center_nan, best)
  row = Where (point_nan, zero, of_finite_point)
  row_value = GatherElements <axis = 1> (s, row)
  value = Squeeze (row_value, axis1)
  weight = CastLike (value, points)
  row_index = Squeeze (row, axis1)
  index = Cast <to = 6> (row_index)
}}
"""

# base and a row of ones are the sums' starting values; slot M takes what no centre does
_SCATTER = """
{{
  axis1 = Constant <value_ints = [1]> ()
  axis2 = Constant <value_ints = [2]> ()
  zero = Constant <value_int = 0> ()
  zeros = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  one_value = Constant <value_float = 1.0> ()
  size = Shape <start = 2, end = 3> (base)
  groups = Shape <start = 0, end = 1> (base)
  value = Cast <to = 1> (values)
  slot = Cast <to = 7> (index)
  {rows}
  start_values = Cast <to = 1> (base)
  ones_shape = Concat <axis = 0> (groups, one, size)
  start_mass = Expand (one_value, ones_shape)
  start = Concat <axis = 1> (start_values, start_mass)
  spare_pads = Constant <value_ints = [0, 0, 0, 0, 0, 1]> ()
  padded_start = Pad (start, spare_pads)
  not_below = GreaterOrEqual (slot, zero)
  not_above = Less (slot, size)
  inside = And (not_below, not_above)
  safe_slot = Where (inside, slot, size)
  slot_row = Unsqueeze (safe_slot, axis1)
  rows_shape = Shape (rows)
  slots = Expand (slot_row, rows_shape)
  padded_sums = ScatterElements <axis = 2, reduction = "add"> (padded_start, slots, rows)
  sums = Slice (padded_sums, zeros, size, axis2)
  channels = Shape <start = 1, end = 2> (base)
  total = Slice (sums, zeros, channels, axis1)
  after = Add (channels, one)
  mass = Slice (sums, channels, after, axis1)
  mean = Div (total, mass)
  centers = CastLike (mean, values)
}}
"""
_ROWS = """mass_of_point = Equal (slot, slot)
  mass_value = Cast <to = 1> (mass_of_point)
  mass_row = Unsqueeze (mass_value, axis1)
  rows = Concat <axis = 1> (value, mass_row)"""
_WEIGHTED_ROWS = """mass_value = Cast <to = 1> (weight)
  mass_row = Unsqueeze (mass_value, axis1)
  weighted = Mul (value, mass_row)
  rows = Concat <axis = 1> (weighted, mass_row)"""

_GATHER = """
{{
  axis1 = Constant <value_ints = [1]> ()
  zero = Constant <value_int = 0> ()
  zero_value = Constant <value_float = 0.0> ()
  size = Shape <start = 2, end = 3> (centers)
  slot = Cast <to = 7> (index)
  not_below = GreaterOrEqual (slot, zero)
  not_above = Less (slot, size)
  inside = And (not_below, not_above)
  safe_slot = Where (inside, slot, zero)
  slot_row = Unsqueeze (safe_slot, axis1)
  groups_channels = Shape <start = 0, end = 2> (centers)
  count = Shape <start = 1, end = 2> (index)
  points_shape = Concat <axis = 0> (groups_channels, count)
  slots = Expand (slot_row, points_shape)
  {found}
  inside_row = Unsqueeze (inside, axis1)
  absent = CastLike (zero_value, centers)
  points = Where (inside_row, found, absent)
}}
"""
_FOUND = "found = GatherElements <axis = 2> (centers, slots)"
_WEIGHTED_FOUND = """picked = GatherElements <axis = 2> (centers, slots)
  picked_value = Cast <to = 1> (picked)
  weight_value = Cast <to = 1> (weight)
  weight_row = Unsqueeze (weight_value, axis1)
  weighted = Mul (picked_value, weight_row)
  found = CastLike (weighted, centers)"""

_BODIES = {
    ("ClusterAssign", 2): _ASSIGN,
    ("ClusterScatter", 3): _SCATTER.format(rows=_ROWS),
    ("ClusterScatter", 4): _SCATTER.format(rows=_WEIGHTED_ROWS),
    ("ClusterGather", 2): _GATHER.format(found=_FOUND),
    ("ClusterGather", 3): _GATHER.format(found=_WEIGHTED_FOUND),
}


def functions(arity: Mapping[str, int]) -> list[onnx.FunctionProto]:
    """One ONNX function for each operator named in `arity`, for nodes with that many inputs."""
    from onnx import parser

    parsed = []
    for name, count in arity.items():
        operator = OPERATORS[name]
        attributes = ", ".join(
            f"{a.name}: {'int' if isinstance(a.default, int) else 'float'} = {a.default}" for a in operator.attributes
        )
        signature = f"{name} {f'<{attributes}>' if attributes else ''}"
        inputs = ", ".join(t.name for t in operator.inputs[:count])
        outputs = ", ".join(t.name for t in operator.outputs)
        header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
        function = parser.parse_function(f"{header}\n{signature} ({inputs}) => ({outputs}) {_BODIES[name, count]}")
        function.doc_string = f"{operator.meaning} (cluinfer operators, version {VERSION})"
        parsed.append(function)
    return parsed
