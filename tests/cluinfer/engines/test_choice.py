"""Which engine is taken where nobody says."""

from __future__ import annotations

import pytest

from cluinfer import engines
from cluinfer.engines import choose_engine
from cluinfer.errors import EngineError, MissingPackageError


class Works:
    def check(self) -> None:
        pass


class Missing:
    def check(self) -> None:
        raise MissingPackageError("not installed")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    known = {"best": (__name__, "Missing"), "next": (__name__, "Works"), "last": (__name__, "Works")}
    monkeypatch.setattr(engines, "ENGINES", known)
    monkeypatch.setattr(engines, "import_module", lambda name: __import__("sys").modules[name])
    return known


def test_the_first_that_works() -> None:
    assert choose_engine() == ("next", "best: not installed; next works here")


def test_none_works(known: dict[str, tuple[str, str]]) -> None:
    del known["next"], known["last"]
    with pytest.raises(EngineError) as error:
        choose_engine()
    assert str(error.value) == "no engine works here: best: not installed"
