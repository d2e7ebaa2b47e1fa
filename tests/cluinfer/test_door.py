"""The door: shutting waits for those inside, and nobody comes in after."""

from __future__ import annotations

import threading

import pytest

from cluinfer.door import Door
from cluinfer.errors import EngineError


def test_shutting_waits_for_those_inside() -> None:
    door, shut = Door("the house is closed"), threading.Event()
    door.enter()
    with door:
        closer = threading.Thread(target=lambda: (door.shut(), shut.set()))
        closer.start()
        while not door.is_shut:
            pass
        with pytest.raises(EngineError) as error:
            door.enter()
        assert str(error.value) == "the house is closed"
        assert not shut.is_set()
    assert not shut.wait(0.05)
    door.leave()
    closer.join(10)
    assert shut.is_set()


def test_who_shut_it_first() -> None:
    door = Door("the house is closed")
    assert not door.is_shut
    assert [door.shut(), door.shut()] == [True, False]


def test_an_error_inside_leaves_too() -> None:
    door = Door("the house is closed")
    with pytest.raises(ValueError, match="x"), door:
        raise ValueError("x")
    assert door.shut()


def test_shut_from_the_start() -> None:
    door = Door("never open", shut=True)
    with pytest.raises(EngineError, match="never open"):
        door.enter()
    assert not door.shut()
