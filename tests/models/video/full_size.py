"""Four scenarios at 1024 px against Meta's predictor: minutes of processor time, so not in the suite.

python -m tests.models.video.full_size
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.models.video.answers import compare
from tests.models.video.clips import write_clip
from tests.models.video.reference import build_reference
from tests.models.video.scenarios import SCENARIOS, Scenario, Session, click

FRAMES = 4


def click_and_correction(s: Session) -> list:
    """As in the suite, within four frames."""
    return [click(s), *s.track(), s.points(2, 1, [[200, 80]], [0]), *s.track(start=3)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image-size", type=int, default=1024)
    chosen = parser.parse_args()
    named = {scenario.name: replace(scenario, frames=FRAMES) for scenario in SCENARIOS}
    scenarios = [
        named["box"],
        named["mask"],
        named["two objects"],
        Scenario("correction", click_and_correction, FRAMES),
    ]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        reference = build_reference(Path(name), chosen.image_size)
        reference.files[FRAMES] = reference.files[8][:FRAMES]
        reference.folders[FRAMES] = write_clip(reference.files[FRAMES], Path(name) / "clip-short")
        for scenario in scenarios:
            for as_cond in (True, False):
                expected = reference.metas_answers(scenario, as_cond)
                session = reference.local_session(scenario, as_cond)
                difference = compare(expected, scenario.play(session))
                failed += not difference.is_within_bounds
                print(f"{scenario.name}, corrections as cond {as_cond}: {difference}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
