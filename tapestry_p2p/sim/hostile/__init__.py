"""Hostile peers as programs that run against real daemons. Only for testnets, benches and tests.

``PROGRAMS`` in table.py names them; ``python -m tapestry_p2p.sim.hostile`` plays one.
"""
