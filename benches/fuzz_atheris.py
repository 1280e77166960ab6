"""Coverage-guided fuzzing of one decoder, from the same table: pip install atheris first.

    python benches/fuzz_atheris.py TARGET [libFuzzer options] [CORPUS]

TARGET is a name of fuzz_targets.py, tests/corpus/TARGET a good corpus to begin with.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris, in an environment of its own")
    with atheris.instrument_imports(include=["tapestry_p2p"]):
        from benches.fuzz_targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]

    def throw(data: bytes) -> None:
        try:
            target.take(data)
        except target.verdict:
            return

    atheris.Setup(sys.argv, throw)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
