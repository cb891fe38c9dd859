"""The web app: one site, a file a page. A page holds layout and wiring; all arithmetic lives in llm_core."""

import contextlib
import os
import sys
import tempfile

from llm_core import programs

if sys.argv[:1] == ["-m"]:  # a page is being started as a program: it has all its imports before it
    programs.begin()

# Before gradio is imported anywhere: it would otherwise report its use to a server outside.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Gradio's files go to one folder for all users of a computer, where only the first of them could start the site.
if hasattr(os, "getuid"):
    with contextlib.suppress(OSError):  # no folder for temporary files: then gradio says so
        os.environ.setdefault("GRADIO_TEMP_DIR", os.path.join(tempfile.gettempdir(), f"gradio-{os.getuid()}"))
# With the package mcp, gradio imports jsonschema, which builds a grammar of web addresses that nothing here reads: 2 s.
# It does without, where this package is not installed.
sys.modules.setdefault("rfc3987_syntax", None)
