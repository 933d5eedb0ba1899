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


def test_the_image_and_the_label_that_were_chosen():
    config = """<View><Image name="a" value="$left"/><Image name="b" value="$right"/>
      <BrushLabels name="organs" toName="a"><Label value="Liver"/></BrushLabels>
      <BrushLabels name="faults" toName="a"><Label value="Tear"/></BrushLabels>
      <PolygonLabels name="outlines" toName="b"><Label value="Tear"/></PolygonLabels></View>"""
    for to_name, label, expected in (
        ("a", "Liver", "organs"),
        ("a", "Tear", "faults"),
        ("a", "Other", "organs"),
        ("a", None, "organs"),
        (None, "Tear", "faults"),
        ("b", "Liver", "outlines"),
    ):
        assert read_label_target(config, MOST, to_name, label).from_name == expected
    assert read_label_target(config, MOST, "b", "Tear").image_field == "right"
    with pytest.raises(Refusal, match="of the name 'c'"):
        read_label_target(config, MOST, "c", "Tear")


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
