"""The link of a member's page, as the page wrote it down when it started. Imports nothing heavy."""

import json
import os

from tapestry_p2p.daemon.paths import Paths

LINK_FILE = "page.json"


def link_of(paths: Paths) -> str:
    """The link, key and all, of a page whose process is there; "" if there is none, or not ours."""
    try:
        found = json.loads((paths.page / LINK_FILE).read_text())
        os.kill(int(found["pid"]), 0)
        return str(found["link"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
