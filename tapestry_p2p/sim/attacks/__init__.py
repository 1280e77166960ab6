"""Byzantine behaviours, by name: what hostile neighbours send, knowing everything.

Knows vectors, weights and the rule that receivers run; no streams and no bytes. scene.py: what an
attacker sees of one synchronous round; lines.py: attacks with a strength t, and the search for the
worst t against the receiver's actual rule; points.py: attacks without one; table.py: the registry.
"""

from tapestry_p2p.sim.attacks.points import flip_labels as flip_labels
from tapestry_p2p.sim.attacks.scene import AIMS as AIMS
from tapestry_p2p.sim.attacks.scene import Aim as Aim
from tapestry_p2p.sim.attacks.scene import Scene as Scene
from tapestry_p2p.sim.attacks.table import ATTACKS as ATTACKS
from tapestry_p2p.sim.attacks.table import OURS as OURS
from tapestry_p2p.sim.attacks.table import PLAYABLE as PLAYABLE
from tapestry_p2p.sim.attacks.table import AttackRow as AttackRow
from tapestry_p2p.sim.attacks.table import spoil as spoil
