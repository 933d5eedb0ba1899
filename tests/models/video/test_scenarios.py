"""Our session logic over the exported graphs gives the answers of Meta's own predictor."""

from typing import Any

import pytest

from tests.models.video.answers import compare
from tests.models.video.mutations import MUTATIONS, Mutation
from tests.models.video.scenarios import RUNS, SCENARIOS, Scenario

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("scenario", "as_cond"),
    RUNS,
    ids=[f"{scenario.name}, {'corrections stick' if c else 'as Meta'}" for scenario, c in RUNS],
)
def test_the_answers_are_metas(video_reference: Any, scenario: Scenario, as_cond: bool) -> None:
    expected = video_reference.metas_answers(scenario, as_cond)
    session = video_reference.local_session(scenario, as_cond)
    difference = compare(expected, scenario.play(session))
    print(f"{scenario.name}: {difference}")
    assert difference.is_within_bounds, difference
    assert all(session.complete)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_shows(
    video_reference: Any, mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = next(s for s in SCENARIOS if s.name == mutation.scenario)
    expected = video_reference.metas_answers(scenario, True)
    session = video_reference.local_session(scenario, True)
    mutation.apply(monkeypatch)
    difference = compare(expected, scenario.play(session))
    print(f"{mutation.name}: {difference}")
    assert not difference.is_within_bounds
