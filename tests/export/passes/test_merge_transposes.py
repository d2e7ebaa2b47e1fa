from __future__ import annotations

from pass_cases import assert_exact, assert_left, build, node


def test_two_that_undo_each_other_go() -> None:
    body = """
      a = Relu (x)
      b = Transpose <perm = [0, 2, 3, 1]> (a)
      c = Transpose <perm = [0, 3, 1, 2]> (b)
      y = Erf (c)
    """
    model = build("float[B,4,5,6] x", "float[B,4,5,6] y", body)
    assert assert_exact("merge_transposes", model, changes=1) == {"Relu": 1, "Erf": 1}


def test_two_others_become_one() -> None:
    body = "a = Transpose <perm = [0, 2, 3, 1]> (x)\ny = Transpose <perm = [1, 0, 2, 3]> (a)"
    model = build("float[B,4,5,6] x", "float[5,B,6,4] y", body)
    assert assert_exact("merge_transposes", model, changes=1) == {"Transpose": 1}
    assert list(node(model, "Transpose").attributes.get_ints("perm") or ()) == [2, 0, 3, 1]


def test_other_readers_keep_the_first() -> None:
    body = """
      b = Transpose <perm = [0, 2, 3, 1]> (x)
      z = Relu (b)
      c = Transpose <perm = [0, 3, 1, 2]> (b)
      y = Erf (c)
    """
    model = build("float[B,4,5,6] x", "float[B,4,5,6] y, float[B,5,6,4] z", body)
    assert assert_exact("merge_transposes", model, changes=1) == {"Transpose": 1, "Relu": 1, "Erf": 1}


def test_one_alone_stays() -> None:
    body = "a = Transpose <perm = [0, 2, 1]> (x)\nb = Relu (a)\ny = Transpose <perm = [0, 2, 1]> (b)"
    assert_left("merge_transposes", build("float[B,4,5] x", "float[B,4,5] y", body))
