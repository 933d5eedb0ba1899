"""Our session logic over the exported graphs gives the answers of Meta's own predictor."""

import pytest

from tests.models.video.answers import compare
from tests.models.video.scenarios import SCENARIOS, Scenario


@pytest.mark.parametrize("as_cond", [True, False], ids=["corrections stick", "Meta's default"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_answers_are_metas(reference, scenario: Scenario, as_cond: bool):
    expected = reference.metas_answers(scenario, as_cond)
    session = reference.local_session(scenario, as_cond)
    difference = compare(expected, scenario.play(session))
    print(f"{scenario.name}: {difference}")
    assert difference.is_within_bounds, difference
    assert all(session.complete)
