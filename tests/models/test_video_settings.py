from pathlib import Path

import pytest
from google.protobuf import text_format
from model_parameters import InvalidSettingError
from tritonclient.grpc import model_config_pb2
from video_settings import parse_settings

CONFIG = Path(__file__).parents[2] / "models/sam2_video/config.pbtxt"


def parameters(**changes):
    config = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    texts = {name: value.string_value for name, value in config.parameters.items()} | changes
    return {name: {"string_value": text} for name, text in texts.items()}


def test_the_configuration_is_read_as_it_stands():
    settings = parse_settings(parameters())
    assert settings.table.memory_window_frames == 16
    assert settings.service.max_pending_steps == 4
    assert settings.step.session_features == 2
    assert settings.output.max_output_bytes == 1 << 29


@pytest.mark.parametrize(
    ("name", "text"), [("memory_window_frames", "5"), ("max_sessions", "0"), ("max_sessions", "x")]
)
def test_values_have_a_least(name, text):
    with pytest.raises(InvalidSettingError, match=name):
        parse_settings(parameters(**{name: text}))


def test_unknown_and_missing_parameters_are_named():
    with pytest.raises(InvalidSettingError, match="unheard_of"):
        parse_settings(parameters(unheard_of="1"))
    incomplete = parameters()
    del incomplete["session_features"]
    with pytest.raises(InvalidSettingError, match="session_features is missing"):
        parse_settings(incomplete)
