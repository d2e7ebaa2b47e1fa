"""The report: predictions as one HTML file that needs nothing else and loads nothing.

    write_report("report.html", [("cat.jpg", prediction), ...], runtime.promise)

- `page.html`, `page.css` and the scripts lie beside this file and are written into the report, in which a content
  security policy allows these scripts and no others, and no connection at all.
- Names come from anyone: they are text in the page, never markup.
- It is written to a temporary name, then renamed: there is a whole report or none.
"""

from __future__ import annotations

from cluinfer.report.write import write_report

__all__ = ["write_report"]
