"""Mixing rules: from neighbours' vectors to one pull, bounded against f Byzantine neighbours.

Knows numpy, weights and f; nothing of streams, peers or topology. base.py: what a rule is told and
answers; blocks.py: passes over the vectors; clipping.py, selection.py, coordinate.py: the rules;
table.py: their registry and ``mix``, the one way to run them.
"""

from tapestry_p2p.mix.rules.base import Report as Report
from tapestry_p2p.mix.rules.table import NAMES as NAMES
from tapestry_p2p.mix.rules.table import RULES as RULES
from tapestry_p2p.mix.rules.table import Rule as Rule
from tapestry_p2p.mix.rules.table import check_rule as check_rule
from tapestry_p2p.mix.rules.table import mix as mix
