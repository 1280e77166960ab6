"""The laws of the mixing rules, as functions that find a violation: shipped, for whoever adds one.

A law takes a rule (a name of mix.rules.NAMES, or a row of one's own) and a seed, draws a case, and
returns its *strain*: what it measured over what the law allows. At most 1 keeps the law, more
breaks it. ``single.py``: one member's mixing; ``rounds.py``: synchronous rounds on random graphs
under arbitrary messages; ``controls.py``: rules that must break a law, two planted faults with
them; ``table.py``: which rule claims which law.
"""
