import pytest
from embedding_settings import LEAST_VALUES, parse_settings
from model_parameters import InvalidSettingError


def parameters(**changes):
    texts = {name: str(least + 90) for name, least in LEAST_VALUES.items()} | changes
    return {name: {"string_value": text} for name, text in texts.items()}


def test_every_parameter_reaches_its_place():
    settings = parse_settings(parameters(cache_budget_bytes="7", max_pending_encodes="9"))
    assert settings.max_requests_in_flight == LEAST_VALUES["max_requests_in_flight"] + 90
    assert settings.tenants.budget_bytes == 7
    assert settings.tenants.encodes.max_pending_encodes == 9
    assert settings.tenants.encodes.tenant_percent == settings.tenant_pending_percent == 91


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "0x10"])
def test_values_are_whole_numbers(text):
    with pytest.raises(InvalidSettingError, match="cache_idle_seconds must be a whole number"):
        parse_settings(parameters(cache_idle_seconds=text))


@pytest.mark.parametrize("name", [n for n, least in LEAST_VALUES.items() if least > 0])
def test_values_have_a_least(name):
    with pytest.raises(InvalidSettingError, match=f"{name} must be .* at least"):
        parse_settings(parameters(**{name: str(LEAST_VALUES[name] - 1)}))


def test_missing_and_unknown_parameters_are_named():
    incomplete = parameters()
    del incomplete["max_image_id_bytes"]
    with pytest.raises(InvalidSettingError, match="max_image_id_bytes is missing"):
        parse_settings(incomplete)
    with pytest.raises(InvalidSettingError, match="unknown parameter 'cache_size'"):
        parse_settings(parameters(cache_size="1"))


@pytest.mark.parametrize("name", ["tenant_cache_percent", "tenant_pending_percent"])
def test_no_share_is_more_than_all(name):
    assert parse_settings(parameters(**{name: "100"}))
    with pytest.raises(InvalidSettingError, match=f"{name} must be at most 100, got 101"):
        parse_settings(parameters(**{name: "101"}))
