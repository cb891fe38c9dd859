"""The web app: one site, a file a page. A page holds layout and wiring; all arithmetic lives in llm_core."""

import os
import sys

# Before gradio is imported anywhere: it would otherwise report its use to a server outside.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# With the package mcp, gradio imports jsonschema, which builds a grammar of web addresses that nothing here reads: 2 s.
# It does without, where this package is not installed.
sys.modules.setdefault("rfc3987_syntax", None)
