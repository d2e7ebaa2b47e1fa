"""What the documentation lists is what there is: options, messages, fields of the file formats."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import option_tables
import pytest
from doc_blocks import ROOT

from cluinfer.artifact import Built, Manifest
from cluinfer.graph import ClusterOutput, Preprocess, Promise
from cluinfer.ops.schema import OPERATORS

MESSAGES = ROOT / "docs" / "troubleshooting.md"
FORMATS = ROOT / "docs" / "formats.md"
VARYING = "…"


def test_every_command_is_there_with_its_options() -> None:
    page = option_tables.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", page, re.M) == list(option_tables.commands())
    assert [found["command"] for found in option_tables.TABLE.finditer(page)] == list(option_tables.commands())
    assert page == option_tables.renewed(page), "python tests/option_tables.py writes the tables anew"


def messages() -> list[str]:
    """The headings of the page on messages."""
    return re.findall(r"^### `(.*)`$", MESSAGES.read_text(encoding="utf-8"), re.M)


def texts() -> list[str]:
    """Every text in the code, the parts that vary as in the documentation."""
    found = []
    for folder in ("cluinfer", "export", "calibration"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(_text(part) for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def _text(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else VARYING


@pytest.fixture(scope="module")
def every_text() -> str:
    return "\n".join(texts())


def test_there_are_messages() -> None:
    assert len(messages()) == MESSAGES.read_text(encoding="utf-8").count("\n### ") > 40
    assert len(set(messages())) == len(messages())


@pytest.mark.parametrize("message", messages())
def test_every_message_is_one_of_ours(message: str, every_text: str) -> None:
    """Its fixed parts stand in one text of the code, in their order; what varies there may be any text here."""
    parts = [re.escape(part) for part in message.split(VARYING) if part]
    assert max(map(len, parts)) > 10
    assert re.search(r"[^\n]*?".join(parts), every_text)


@pytest.mark.parametrize("kind", [Manifest, Built, Promise, Preprocess, ClusterOutput])
def test_every_field_of_the_formats_is_described(kind: type) -> None:
    page = FORMATS.read_text(encoding="utf-8")
    assert [each.name for each in fields(kind) if f"`{each.name}`" not in page] == []


def test_every_operator_is_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", FORMATS.read_text(encoding="utf-8"), re.M)
    described = dict(rows)
    for operator in OPERATORS.values():
        row = described[operator.name]
        for tensor in (*operator.inputs, *operator.outputs):
            optional = ", optional" if tensor.optional else ""
            assert f"`{tensor.name}` {tensor.dtype} `[{', '.join(tensor.shape)}]`{optional}" in row
        for attribute in operator.attributes:
            assert f"`{attribute.name}` = {attribute.default}" in row


def test_the_pages_name_no_file_that_is_not_there() -> None:
    pages = [*(ROOT / "docs").glob("*.md")]
    named = {(page, name) for page in pages for name in re.findall(r"`((?:\w+/)+\w+\.\w+)`", page.read_text("utf-8"))}
    assert len(named) > 5
    assert [(page.name, name) for page, name in sorted(named) if not Path(ROOT, name).is_file()] == []
