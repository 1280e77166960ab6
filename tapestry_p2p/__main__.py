"""``python -m tapestry_p2p``: the command line."""

import sys

from tapestry_p2p.cli.main import main

sys.exit(main())
