"""Where a project's labelling configuration wants a mask, and what is refused of it."""

import pytest
from front.refusals import Refusal
from front.tools.label_studio_config import LabelTarget, read_label_target

from tests.front.tools.label_studio_player import LABEL_CONFIG, POLYGON_CONFIG

MOST = 1_000_000


def test_the_brush_of_the_image():
    assert read_label_target(LABEL_CONFIG, MOST) == LabelTarget(
        "brushlabels", "tag", "image", "image"
    )
    assert read_label_target(POLYGON_CONFIG, MOST).kind == "polygonlabels"
    # Wherever in the view, of whichever image it names; brushes before polygons.
    config = """<!-- two images --><View><View>
      <Image name="a" value="$left"/><Image name="b" value="$right"/>
      <PolygonLabels name="p" toName="a"/><BrushLabels name="m" toName="b"/></View></View>"""
    assert read_label_target(config, MOST) == LabelTarget("brushlabels", "m", "b", "right")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "expected XML"),
        ("<View>", "expected XML"),
        ("<View>\u0000</View>", "expected XML"),
        ("\ud800", "expected XML"),
        ("<!DOCTYPE x><View/>", "declarations"),
        ("<View><![CDATA[x]]></View>", "declarations"),
        ("<View/>", "BrushLabels or PolygonLabels"),
        (
            "<View><Image name='a' value='$a'/><BrushLabels name='m' toName='b'/></View>",
            "whose toName",
        ),
        ("<View><Image name='a' value='$a'/><BrushLabels toName='a'/></View>", "whose toName"),
        ("<View><Image name='a' value='$'/><BrushLabels name='m' toName='a'/></View>", r"\$FIELD"),
        ("<View><Image name='a'/><BrushLabels name='m' toName='a'/></View>", r"\$FIELD"),
        ("<View>" + " " * MOST + "</View>", "max_label_config_bytes"),
    ],
)
def test_what_is_refused(config, words):
    with pytest.raises(Refusal, match=words) as refused:
        read_label_target(config, MOST)
    assert refused.value.http_status == 400
