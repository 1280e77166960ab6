"""What members claim of their models, language by language, the worst language first. Pure.

Claims are signed and cannot be checked: they are shown beside the short id of who makes them, and
summed up by a median of members that are mixed here, so that neither a liar nor a crowd of new keys
moves it far. Nothing is decided by them.
"""

from collections.abc import Callable, Iterable, Mapping
from statistics import median, pstdev
from typing import Any

from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.gossip.profile import Profile, Results

LANGUAGES_MAX = 64  # shown
CLAIMS_MAX = 17  # of each language; as many as follow each other
MODELS = ("alone", "together", "sovereign")

Claim = tuple[bytes, Profile]


def table(
    own: Claim, members: Mapping[bytes, Profile], counts: Callable[[bytes], bool]
) -> list[dict[str, Any]]:
    """One row for each language that has results. ``counts``: whether the claim of a key does."""
    told = [claim for claim in (own, *members.items()) if claim[1].results is not None]
    told = list({key: (key, profile) for key, profile in reversed(told)}.values())
    unit = _unit(own[1].results, told)
    by_language: dict[str, list[Claim]] = {}
    for key, profile in told:
        if profile.results is not None and profile.results.unit == unit:
            for language in dict.fromkeys(name.strip().casefold() for name in profile.languages):
                by_language.setdefault(language, []).append((key, profile))
    known = {key for key, _ in told if key == own[0] or counts(key)}
    rows = [_row(language, unit, found, known) for language, found in by_language.items()]
    best_last = 1 if unit == "accuracy" else -1
    rows.sort(
        key=lambda r: (r["together"] is None, best_last * (r["together"] or 0), r["language"])
    )
    return rows[:LANGUAGES_MAX]


def diversity(own: Claim, members: Mapping[bytes, Profile], counts: Callable[[bytes], bool]) -> Any:
    """Spread of members' own models on their own data: deviation over mean. None below two."""
    everyone = {**members, own[0]: own[1]}
    unit = own[1].results.unit if own[1].results else ""
    values = [
        profile.results.sovereign
        for key, profile in everyone.items()
        if profile.results and profile.results.unit == unit and profile.results.sovereign
        if key == own[0] or counts(key)
    ]
    return round(pstdev(values) / (sum(values) / len(values)), 4) if len(values) > 1 else None


def _unit(own: Results | None, told: Iterable[Claim]) -> str:
    """Our own unit; without results of ours the one that most claims have."""
    if own is not None:
        return own.unit
    units = sorted(profile.results.unit for _, profile in told if profile.results)
    return max(units, key=units.count, default="")


def _row(language: str, unit: str, found: list[Claim], known: set[bytes]) -> dict[str, Any]:
    counted = [profile.results for key, profile in found if key in known]
    shown = sorted(found, key=lambda claim: (claim[0] not in known, claim[0]))[:CLAIMS_MAX]
    medians = {
        model: _thousandths(median(values)) if values else None
        for model in MODELS
        for values in [[getattr(r, model) for r in counted if getattr(r, model)]]
    }
    return {
        "language": language,
        "unit": unit,
        "members": len(counted),
        "not_counted": len(found) - len(counted),
        **medians,
        "claims": [_claim(key, profile, key in known) for key, profile in shown],
    }


def _claim(key: bytes, profile: Profile, counted: bool) -> dict[str, Any]:
    results = profile.results
    values = {m: _thousandths(getattr(results, m)) or None for m in MODELS}
    step = results.step if results else 0
    row = {"id": peer_id_of(key), "name": profile.name, "counted": counted, "steps": step}
    return {**row, **values}


def _thousandths(value: float) -> float:
    return round(value / 1000, 4)
