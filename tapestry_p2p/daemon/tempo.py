"""How long things may take, from how long they took: steps of a round, a trainer's silence. Pure.

Knows numbers alone. Nothing here reads a clock: `Silence` counts looks, so that neither a jump of
a clock nor a machine that slept makes anybody late.
"""

SMOOTHING = 0.5  # weight of the newest round's time of a step
BOUND = 4  # times fewer or more steps than the network's number
DEADBAND = 0.1  # a change below this share is not worth telling

LOOK_S = 5.0
SILENCE_LEAST_S = 300.0  # a local user's question may hold a trainer up so long
SILENCE_TIMES = 20.0  # of the longest round seen
SILENCE_FIRST_S = 3600.0  # before a life's first round; doubles each time it was too short
SILENCE_MOST_S = 86_400.0


class Tempo:
    """Adaptive H: how many inner steps make a round that takes ``round_s`` here and now.

    H = round_s / s, where s is the exponentially smoothed time of a step; between 1/4 and 4 times
    the network's number. A time of a step is taken as one that leads there, so that one that was
    measured wrongly is forgotten within some rounds. ``round_s`` 0: always that number.
    """

    def __init__(self, steps: int, round_s: float) -> None:
        self._least, self._most = max(1, steps // BOUND), steps * BOUND
        self._round_s = round_s
        self._step_s = 0.0
        self.steps = steps

    def took(self, steps: int, seconds: float) -> bool:
        """A round took so long; whether the number of steps has changed."""
        if not self._round_s or steps < 1 or seconds <= 0:
            return False
        shortest, longest = self._round_s / self._most, self._round_s / self._least
        last, newest = self._step_s, min(longest, max(shortest, seconds / steps))
        self._step_s = newest if not last else last + SMOOTHING * (newest - last)
        wanted = round(self._round_s / self._step_s)
        if abs(wanted - self.steps) <= DEADBAND * self.steps:
            return False
        self.steps = wanted
        return True


class Silence:
    """How long a trainer that owes us a vector may say nothing, over all its lives."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._first_s = SILENCE_FIRST_S
        self._silent_s = 0.0
        self._young = True

    @property
    def allowed_s(self) -> float:
        """The bound in force."""
        least = self._first_s if self._young else SILENCE_LEAST_S
        return min(SILENCE_MOST_S, max(least, SILENCE_TIMES * self._longest_s))

    def began(self) -> None:
        """Another life began: it may have to compile, and to read its state."""
        self._silent_s, self._young = 0.0, True

    def heard(self, round_s: float = 0.0) -> None:
        """Something came; ``round_s``: it was a vector, whose round took so long."""
        self._silent_s = 0.0
        self._longest_s = max(self._longest_s, round_s)
        self._young = self._young and not round_s

    def looked(self, owes: bool) -> bool:
        """Nothing came for one more look; whether that is too long."""
        self._silent_s = self._silent_s + LOOK_S if owes else 0.0
        if self._silent_s <= self.allowed_s:
            return False
        self._silent_s = 0.0
        self._first_s *= 2
        self._longest_s *= 2
        return True
