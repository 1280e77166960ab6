"""benches/partitions.py: worlds recover in ten rounds; one that is not healed does not."""

from dataclasses import replace

from benches.partitions import NEVER, ROUNDS_MAX, report, table, try_world


def test_a_world_recovers_and_the_same_one_unhealed_does_not() -> None:
    healed, control = try_world(2), try_world(2, heals=False)
    assert healed.holds
    assert healed.worst_apart > 3, "the cut did something"
    assert control.apart_rounds == control.loss_rounds == NEVER
    assert not control.holds
    assert report([healed])["sound"]
    assert not report([healed, control])["sound"]
    assert report([control], heals=False)["sound"]
    assert "worst" in table(report([healed, control]))


def test_who_recovers_late_or_stood_still_while_apart_misses_the_bound() -> None:
    sound = replace(try_world(5), loss_rounds=1, apart_rounds=ROUNDS_MAX, least_share=0.99)
    assert sound.holds
    assert not replace(sound, apart_rounds=ROUNDS_MAX + 1).holds
    assert not replace(sound, least_share=0.5).holds
