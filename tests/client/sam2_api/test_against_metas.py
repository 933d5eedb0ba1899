"""The steps of the reference's example notebooks, written anew, with Meta's own classes and with ours: the
same code, another import. Both have the same weights, Meta's here and ours in the server; what differs is the
rounding of the resized image to uint8 and of embeddings to FP16.
"""

import time
import warnings

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import sam2_api

from tests.meta_package import meta_generator, meta_model, meta_predictor
from tests.photographs import opened, photograph, picture_of_discs
from tests.server_figures import cache_metrics

pytestmark = pytest.mark.server

# At the small model's own size; the same pixels of masks at the photograph's size are over 99.9 %.
LEAST_AGREEMENT = 0.999
# Of logits that reach from about -10 to 10, and of predicted IoU.
LOGIT_ERROR, IOU_ERROR = 0.15, 0.005
COINS = np.array(opened(photograph("coins.png")).convert("RGB"))
DISCS = [np.array(opened(picture_of_discs(seed)).convert("RGB")) for seed in (5, 6)]


@pytest.fixture(scope="module")
def network():
    return meta_model()


@pytest.fixture(scope="module")
def pairs(network, server):
    """Meta's predictor, and ours made as the notebooks make theirs."""
    model = sam2_api.build_sam2(
        "configs/sam2.1/sam2.1_hiera_l.yaml",
        "../checkpoints/sam2.1_hiera_large.pt",
        device="cuda",
        url=server.grpc_url,
    )
    with model.client:
        yield meta_predictor(network), sam2_api.SAM2ImagePredictor(model)


def steps_of_one_image(predictor):
    """Clicks, a refinement, a box, both, several boxes: one image, prompt after prompt."""
    predictor.set_image(COINS)
    point, label = np.array([[109, 199]]), np.array([1])
    masks, scores, logits = predictor.predict(
        point_coords=point, point_labels=label, multimask_output=True
    )
    order = np.argsort(scores)[::-1]
    masks, scores, logits = masks[order], scores[order], logits[order]
    yield "a click", (masks, scores, logits)
    best = logits[np.argmax(scores), :, :]
    yield (
        "two clicks and the best mask",
        predictor.predict(
            point_coords=np.array([[109, 199], [120, 205]]),
            point_labels=np.array([1, 1]),
            mask_input=best[None, :, :],
            multimask_output=False,
        ),
    )
    yield (
        "a click outside as well",
        predictor.predict(
            point_coords=np.array([[109, 199], [150, 160]]),
            point_labels=np.array([1, 0]),
            mask_input=best[None, :, :],
            multimask_output=False,
        ),
    )
    box = np.array([85, 175, 135, 225])
    yield "a box", predictor.predict(box=box[None, :], multimask_output=False)
    yield "a box of one axis", predictor.predict(box=box)
    yield (
        "a box and a click",
        predictor.predict(
            point_coords=np.array([[90, 180]]),
            point_labels=np.array([0]),
            box=box,
            multimask_output=False,
        ),
    )
    boxes = np.array(
        [[85, 175, 135, 225], [20, 25, 70, 80], [150, 170, 200, 225], [0, 0, 383, 302]]
    )
    several = predictor.predict(box=boxes, multimask_output=False)
    assert several[0].shape == (4, 1, *COINS.shape[:2])
    yield "four boxes", several
    points = np.array([[[109, 199]], [[45, 50]]], np.float32)
    yield "two objects", predictor.predict(points, np.array([[1], [1]]))
    yield (
        "two objects, a click and a box each",
        predictor.predict(points, np.array([[1], [1]]), box=boxes[:2], multimask_output=False),
    )
    yield (
        "one mask for two objects",
        predictor.predict(points, np.array([[1], [1]]), mask_input=best[None]),
    )
    yield "the mask alone", predictor.predict(mask_input=best[None], multimask_output=False)
    yield "logits", predictor.predict(point, label, return_logits=True)
    yield (
        "coordinates from 0 to 1",
        predictor.predict(point / [384, 303], label, None, None, True, False, False),
    )
    yield (
        "a box from 0 to 1",
        predictor.predict(box=box / [384, 303, 384, 303], normalize_coords=False),
    )


def steps_of_a_batch(predictor):
    """Two images of other sizes at once."""
    predictor.set_image_batch([COINS, DISCS[0]])
    boxes = [np.array([[85, 175, 135, 225], [20, 25, 70, 80]]), np.array([[10, 10, 90, 90]])]
    masks, scores, logits = predictor.predict_batch(
        None, None, box_batch=boxes, multimask_output=False
    )
    assert all(isinstance(part, list) and len(part) == 2 for part in (masks, scores, logits))
    for index in range(2):
        yield f"boxes, image {index}", (masks[index], scores[index], logits[index])
    points = [np.array([[[109, 199]], [[45, 50]]]), np.array([[[60, 60]], [[100, 30]]])]
    labels = [np.array([[1], [1]]), np.array([[1], [1]])]
    masks, scores, logits = predictor.predict_batch(
        points, labels, box_batch=None, multimask_output=True
    )
    for index in range(2):
        best = masks[index][range(2), np.argmax(scores[index], axis=-1)]
        yield f"points, image {index}, the best", (best, scores[index], logits[index])
    yield "the last image without the batch", predictor.predict(points[1][0], labels[1][0])


def steps_of_pil_images(predictor):
    """PIL instead of numpy; a mask threshold; another image takes the first one's place."""
    for pixels in DISCS:
        predictor.set_image(Image.fromarray(pixels))
        yield "a picture", predictor.predict(np.array([[70.5, 60.25]]), np.array([1]))
    predictor.mask_threshold = 1.5
    yield "above a threshold", predictor.predict(np.array([[70, 60]]), np.array([True]))
    predictor.mask_threshold = 0.0


@pytest.mark.parametrize("steps", [steps_of_one_image, steps_of_a_batch, steps_of_pil_images])
def test_the_notebooks_steps_give_metas_results(pairs, steps):
    theirs, ours = (list(steps(predictor)) for predictor in pairs)
    assert [name for name, _ in theirs] == [name for name, _ in ours]
    failures = []
    for (name, expected), (_, got) in zip(theirs, ours, strict=True):
        for part, wanted in zip(got, expected, strict=True):
            assert (part.shape, part.dtype) == (wanted.shape, wanted.dtype), name
            assert part.flags.writeable
        masks, ious, logits = (
            np.abs(part - wanted) for part, wanted in zip(got, expected, strict=True)
        )
        if name == "logits":
            agreement = ((got[0] > 0) == (expected[0] > 0)).mean()
            assert masks.mean() < LOGIT_ERROR
        else:
            assert set(np.unique(got[0])) <= {0.0, 1.0}
            agreement = (masks == 0).mean()
        figures = (
            f"{name}: pixels {agreement:.5f}, iou {ious.max():.5f}, logits {logits.mean():.4f}"
        )
        print(figures)
        if agreement < LEAST_AGREEMENT or ious.max() > IOU_ERROR or logits.mean() > LOGIT_ERROR:
            failures.append(figures)
    assert not failures, "\n".join(failures)


def test_a_picture_that_was_set_before_is_not_encoded_again(server):
    pixels = np.array(opened(picture_of_discs(990)).convert("RGB"))
    prompt = {"point_coords": np.array([[70, 60]]), "point_labels": np.array([1])}

    def encodes() -> int:
        time.sleep(1.2)  # published once a second
        return int(cache_metrics(server)["encodes_total"])

    before = encodes()
    first = sam2_api.SAM2ImagePredictor(server.grpc_url)
    first.set_image(pixels)
    masks, _, _ = first.predict(**prompt)
    assert encodes() == before + 1
    second = sam2_api.SAM2ImagePredictor(f"http://{server.http_url}")
    second.set_image(Image.fromarray(pixels))
    np.testing.assert_array_equal(second.predict(**prompt)[0], masks)
    assert len(sam2_api.SAM2AutomaticMaskGenerator(server.grpc_url, 4, **SOFT).generate(pixels)) > 0
    assert encodes() == before + 1


SOFT = {"pred_iou_thresh": 0.7, "stability_score_thresh": 0.8, "stability_score_offset": 0.3}
GENERATORS = {
    "bitmaps": SOFT | {"points_per_side": 8},
    "run lengths": SOFT | {"points_per_side": 6, "output_mode": "uncompressed_rle"},
    "COCO's, crops": SOFT
    | {"points_per_side": 6, "output_mode": "coco_rle"}
    | {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "refined": SOFT | {"points_per_side": 6, "use_m2m": True, "points_per_batch": 128},
    "a grid of one's own, one mask a point": {"pred_iou_thresh": 0, "stability_score_thresh": 0}
    | {"points_per_side": None, "point_grids": [np.array([[0.28, 0.65], [0.5, 0.5]])]}
    | {"multimask_output": False},
}


@pytest.mark.parametrize("name", GENERATORS)
def test_the_generators_records_are_metas(network, server, name):
    parameters = GENERATORS[name]
    expected = meta_generator(network, **parameters).generate(COINS)
    generator = sam2_api.SAM2AutomaticMaskGenerator(server.grpc_url, **parameters)
    got = generator.generate(COINS)
    assert len(expected) > 0
    # Where rounding decides on a threshold or on an order, either is right.
    assert abs(len(got) - len(expected)) <= len(expected) // 10
    for record, like in zip(got, expected, strict=False):
        assert list(record) == list(like)
        for key, value in like.items():
            assert type(record[key]) is type(value), key
            if isinstance(value, list):
                assert [type(each) for each in record[key]] == [type(each) for each in value], key
    places = []
    for like in expected:
        agreements = [agreement(record, like) for record in got]
        if max(agreements) >= LEAST_AGREEMENT:
            places.append(int(np.argmax(agreements)))
    print(f"{name}: {len(expected)} masks, {len(got)} ours, {len(places)} twins at {places}")
    assert len(places) >= 0.9 * len(expected)
    # The same order, but for scores that differ by less than rounding.
    assert (np.abs(np.argsort(places) - np.arange(len(places))) <= 3).all()


def pixels(segmentation) -> np.ndarray:
    if isinstance(segmentation, np.ndarray):
        assert segmentation.dtype == bool
        return segmentation
    from pycocotools import mask as coco_mask

    if isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation).astype(bool)
    height, width = segmentation["size"]
    values = np.arange(len(segmentation["counts"])) % 2 == 1
    return np.repeat(values, segmentation["counts"]).reshape(width, height).T


def agreement(record: dict, like: dict) -> float:
    """Of pixels; 0 where a mask comes from another point, or another plane of it."""
    if record["point_coords"] != like["point_coords"] or record["crop_box"] != like["crop_box"]:
        return 0.0
    near = np.abs(np.subtract(record["bbox"], like["bbox"])).max() <= 2
    return float(near) * (pixels(record["segmentation"]) == pixels(like["segmentation"])).mean()


@pytest.fixture(autouse=True)
def quiet():
    """Meta's package warns of its missing CUDA kernel with every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Skipping the post-processing.*")
        yield
