"""Where the trainer stands in its rounds, and what it does next. Pure: no arrays, no sockets.

Rule: the trainer never waits for the node while there is training left, holds at most two vectors
that the node has not answered, and adds every correction once, in order.

    phase      event                      becomes
    idle       train                      training
    training   hand over, last round      finished
    finished   train                      training
    any        start                      idle (what was unanswered is forgotten)
"""

from __future__ import annotations

from tapestry_p2p.link import LinkError

UNANSWERED_MAX = 2  # one a slot of the shared memory
IDLE, TRAINING, FINISHED = "idle", "training", "finished"
WAIT, STEP, HAND_OVER = "wait", "step", "hand_over"


class Course:
    """Counters of one trainer: sequence numbers, rounds, steps of this round."""

    def __init__(self) -> None:
        self.phase = IDLE
        self.started = False  # whether a vector to begin from ever came
        self.seq = 0  # of the newest vector handed over
        self.applied = 0  # of the newest correction added
        self.added = 0  # of the newest addition that came unasked
        self.round = 0
        self.round_steps = 0  # taken since the last vector
        self._wanted_steps = 0
        self._last_round = 0

    @property
    def unanswered(self) -> int:
        """Vectors handed over that no correction has answered."""
        return self.seq - self.applied

    def start(self, seq: int, round_: int) -> None:
        """Begin anew from a vector of the node: the next vector is ``seq + 1``."""
        self.phase, self.started = IDLE, True
        self.seq = self.applied = seq
        self.added = 0
        self.round, self.round_steps = round_, 0

    def train(self, round_: int, steps: int, last_round: int) -> None:
        """Train rounds ``round_``..``last_round`` (0: for ever) of ``steps`` inner steps."""
        if steps < 1 or (last_round and last_round < round_):
            raise LinkError("train: no such rounds")
        self.phase = TRAINING
        self.round, self.round_steps = round_, 0
        self._wanted_steps, self._last_round = steps, last_round

    def pace(self, steps: int) -> None:
        """Rounds have so many steps from now on, the running one too."""
        if steps < 1:
            raise LinkError("pace: no such round")
        self._wanted_steps = steps

    def correct(self, seq: int) -> None:
        """A correction was added. LinkError unless it answers the oldest unanswered vector."""
        if not self.applied < seq <= self.seq or seq != self.applied + 1:
            raise LinkError("correct: not the oldest unanswered vector")
        self.applied = seq

    def add(self, seq: int) -> None:
        """An addition that answers no vector was made. LinkError unless it is the next one."""
        if seq != self.added + 1:
            raise LinkError("add: not the next one")
        self.added = seq

    def stepped(self) -> None:
        """One inner step was taken."""
        self.round_steps += 1

    def restart_round(self) -> None:
        """The steps of this round were thrown away."""
        self.round_steps = 0

    def next(self, schedule_over: bool) -> str:
        """WAIT, STEP or HAND_OVER. With the schedule over there is nothing left to train."""
        if self.phase != TRAINING:
            return WAIT
        if self.round_steps < self._wanted_steps and not schedule_over:
            return STEP
        if self.unanswered < UNANSWERED_MAX:
            return HAND_OVER
        return WAIT if schedule_over else STEP

    def handed_over(self) -> int:
        """A vector is on its way; its sequence number."""
        self.seq += 1
        self.round_steps = 0
        if self.round == self._last_round:
            self.phase = FINISHED
        else:
            self.round += 1
        return self.seq
