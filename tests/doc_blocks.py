"""The Python blocks of the documentation, and how one is run.

A ```text block that follows is what a block prints. A block that cannot run here says why in a comment before it:
<!-- not run: REASON -->.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
QUICK_START = ROOT / "docs" / "quickstart.md"
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    code: str
    output: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def run(self, names: dict[str, Any]) -> None:
        """Executed where it stands in the page, so that a traceback shows the page's own lines."""
        code = compile("\n" * (self.line - 1) + self.code, str(self.page), "exec")
        printed = io.StringIO()
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the checkpoint is of no published size, which loading it says
            exec(code, names)
        if self.output is not None:
            assert printed.getvalue() == self.output, f"{self} prints something else"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["code"], found["output"], found["reason"])
