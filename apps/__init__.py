"""The web app: one site, a file a page. A page holds layout and wiring; all arithmetic lives in llm_core."""

import os

# Before gradio is imported anywhere: it would otherwise report its use to a server outside.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
