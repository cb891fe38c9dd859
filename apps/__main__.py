"""`python -m apps [--host H] [--port P] [--mcp]` serves the whole site."""

import gc

from llm_core import programs

gc.disable()  # until the site serves: a fifth of its start would go into looking for garbage where there is none

with programs.starting():
    from apps import site, starting

if __name__ == "__main__":
    starting.end(starting.serve(site.build, "python -m apps", "The course's site.", offers_mcp=True,
                                prepare=site.prepare))
