"""The graphs, still in PyTorch, against transformers' own forward passes."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import Sam2Model

from export.graphs import Graphs, build_graphs, fingerprint_of
from export.pixels import FP16_ZERO
from export.reference import reference_decode, reference_encode
from export.sizes import with_image_size
from tests.export.conftest import CHANNELS, IMAGE_SIZE, micro_model

SIDE = IMAGE_SIZE // 4


# Two ways to sum the same FP32 numbers, behind a phase of many turns for points outside the image;
# planes have a standard deviation of about 1.
def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=3e-4)


def images(count: int, size: int = IMAGE_SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def embeddings(graphs: Graphs) -> list[Tensor]:
    with torch.no_grad():
        return list(graphs.encoder(images(1)))


def decode(  # noqa: PLR0917
    graphs: Graphs,
    embeddings: list[Tensor],
    points: Tensor,
    labels: list[list[int]],
    masks: Tensor | None = None,
    has_mask: list[float] | None = None,
) -> tuple[Tensor, Tensor]:
    objects = len(labels)
    with torch.no_grad():
        planes, ious, matches = graphs.decoder(
            *embeddings,
            points,
            torch.tensor(labels, dtype=torch.int32),
            torch.zeros(objects, 1, SIDE, SIDE) if masks is None else masks,
            torch.zeros(objects) if has_mask is None else torch.tensor(has_mask),
        )
    assert matches.tolist() == [True]
    return planes, ious


def features_of(embeddings: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return embeddings[0], embeddings[1], embeddings[2]


def random_points(objects: int, count: int, seed: int = 0) -> Tensor:
    return torch.rand(objects, count, 2, generator=torch.Generator().manual_seed(seed))


def random_masks(objects: int) -> Tensor:
    return 4 * torch.randn(objects, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("image_size", [32, 64, 96, 160, 256])
def test_encoder_is_the_references_at_any_image_size(image_size: int) -> None:
    model = micro_model(image_size=image_size)
    with torch.no_grad():
        got = build_graphs(model).encoder(images(2, image_size))
    for tensor, expected in zip(got, reference_encode(model, images(2, image_size)), strict=False):
        assert tensor.dtype == torch.float16
        # Half a unit in the last place of FP16, relative and near zero.
        torch.testing.assert_close(tensor.float(), expected, rtol=6e-4, atol=1e-4)


def test_fp16_pixels_are_grey_levels_between_whole_ones(model: Sam2Model, graphs: Graphs) -> None:
    pixels = (images(1).float() / 3 - FP16_ZERO).half()
    with torch.no_grad():
        got = graphs.encoder(pixels)
    expected = reference_encode(model, pixels.float() + FP16_ZERO)
    for tensor, reference in zip(got, expected, strict=False):
        torch.testing.assert_close(tensor.float(), reference, rtol=6e-4, atol=1e-4)


def test_encoder_output_has_no_memory_embedding_and_the_decoder_adds_it(
    graphs: Graphs, model: Sam2Model, embeddings: list[Tensor]
) -> None:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.no_memory_embedding += 1
    other = build_graphs(changed)
    with torch.no_grad():
        for tensor, expected in zip(other.encoder(images(1))[:3], embeddings[:3], strict=True):
            assert torch.equal(tensor, expected)
    points = random_points(1, 2)
    planes, _ = decode(graphs, embeddings, points, [[1, -1]])
    embeddings = [*embeddings[:3], torch.tensor([[fingerprint_of(changed)]])]
    shifted, _ = decode(other, embeddings, points, [[1, -1]])
    assert (planes - shifted).abs().mean() > 0.1 * planes.std()


@pytest.mark.parametrize(
    "labels",
    [
        [[1]],
        [[1, -1]],
        [[2, 3, -1]],
        [[2, 3, 1, 0, 0, -1]],
        [[1, 0, -1], [2, 3, -1], [1, -1, -1]],
        [[-1, -1]],
    ],
)
@pytest.mark.parametrize("with_mask", [False, True])
def test_decoder_is_the_references(
    graphs: Graphs,
    model: Sam2Model,
    embeddings: list[Tensor],
    labels: list[list[int]],
    with_mask: bool,
) -> None:
    objects = len(labels)
    # Outside the image is allowed, as in the reference.
    points = 3 * random_points(objects, len(labels[0])) - 1
    masks = random_masks(objects)
    planes, ious = decode(graphs, embeddings, points, labels, masks, [float(with_mask)] * objects)
    assert planes.shape == (objects, 4, SIDE, SIDE)
    for index in range(objects):
        mask = masks[index] if with_mask else None
        expected_planes, expected_ious = reference_decode(
            model, features_of(embeddings), points[index], torch.tensor(labels[index]), mask
        )
        assert_close(planes[index], expected_planes)
        assert_close(ious[index], expected_ious)


def test_each_object_has_its_own_mask_or_none(
    graphs: Graphs, model: Sam2Model, embeddings: list[Tensor]
) -> None:
    points, masks = random_points(3, 2), random_masks(3)
    planes, _ = decode(graphs, embeddings, points, [[1, -1]] * 3, masks, [1, 0, 1])
    for index, has_mask in enumerate((True, False, True)):
        mask = masks[index] if has_mask else None
        expected, _ = reference_decode(
            model, features_of(embeddings), points[index], torch.tensor([1, -1]), mask
        )
        assert_close(planes[index], expected)


def test_an_unused_mask_does_not_matter(graphs: Graphs, embeddings: list[Tensor]) -> None:
    points = random_points(1, 2)
    without, _ = decode(graphs, embeddings, points, [[1, -1]])
    unused = torch.full((1, 1, SIDE, SIDE), torch.nan)
    ignored, _ = decode(graphs, embeddings, points, [[1, -1]], unused, [0])
    assert torch.equal(without, ignored)


def test_a_mask_alone_is_the_references_zero_sparse_tokens(
    graphs: Graphs, model: Sam2Model, embeddings: list[Tensor]
) -> None:
    masks = random_masks(1)
    planes, ious = decode(graphs, embeddings, random_points(1, 1), [[-2]], masks, [1])
    nothing = torch.zeros(0, 2)
    expected_planes, expected_ious = reference_decode(
        model, features_of(embeddings), nothing, torch.zeros(0, dtype=torch.int64), masks[0]
    )
    assert_close(planes[0], expected_planes)
    assert_close(ious[0], expected_ious)


def test_no_token_and_not_a_point_are_different(graphs: Graphs, embeddings: list[Tensor]) -> None:
    masks = random_masks(1)
    none, _ = decode(graphs, embeddings, random_points(1, 1), [[-2]], masks, [1])
    padding, _ = decode(graphs, embeddings, random_points(1, 1), [[-1]], masks, [1])
    assert (none - padding).abs().mean() > 0.01 * none.std()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_token_that_is_none_has_no_influence_wherever_it_stands(
    graphs: Graphs, embeddings: list[Tensor], position: int
) -> None:
    points = random_points(1, 2)
    expected, expected_ious = decode(graphs, embeddings, points, [[1, 0]])
    labels = [1, 0]
    labels.insert(position, -2)
    # Not even a coordinate that is no number.
    nowhere = torch.full((1, 1, 2), torch.nan)
    longer = torch.cat([points[:, :position], nowhere, points[:, position:]], dim=1)
    planes, ious = decode(graphs, embeddings, longer, [labels])
    assert_close(planes, expected)
    assert_close(ious, expected_ious)


def test_objects_do_not_influence_one_another(graphs: Graphs, embeddings: list[Tensor]) -> None:
    points, masks = random_points(2, 1), random_masks(2)
    both, _ = decode(graphs, embeddings, points, [[-2], [1]], masks, [1, 0])
    click, _ = decode(graphs, embeddings, points[1:], [[1]], masks[1:], [0])
    assert_close(both[1:], click)


@pytest.mark.parametrize("coordinate", [1e6, -1e9, 3e38, -3e38])
def test_huge_coordinates_stay_numbers(
    graphs: Graphs, embeddings: list[Tensor], coordinate: float
) -> None:
    points = torch.full((1, 1, 2), coordinate)
    planes, ious = decode(graphs, embeddings, points, [[1]])
    assert planes.isfinite().all()
    assert ious.isfinite().all()


def test_ious_are_probabilities(graphs: Graphs, embeddings: list[Tensor]) -> None:
    _, ious = decode(graphs, embeddings, random_points(4, 2), [[1, -1]] * 4)
    assert ious.shape == (4, 4)
    assert (ious > 0).all()
    assert (ious < 1).all()


def test_fingerprint_is_of_weights_and_image_size(model: Sam2Model) -> None:
    fingerprint = fingerprint_of(model)
    assert -(2**63) <= fingerprint < 2**63
    assert fingerprint_of(copy.deepcopy(model)) == fingerprint
    assert fingerprint_of(micro_model(seed=1)) != fingerprint
    resized = Sam2Model(with_image_size(model.config, 64))
    resized.load_state_dict(model.state_dict())
    assert fingerprint_of(resized) != fingerprint
    nudged = copy.deepcopy(model)
    with torch.no_grad():
        nudged.no_memory_embedding[0, 0, 0] += 1e-6
    assert fingerprint_of(nudged) != fingerprint


def test_fingerprint_of_other_precision_is_refused(model: Sam2Model) -> None:
    with pytest.raises(TypeError, match="expected FP32 weights"):
        fingerprint_of(copy.deepcopy(model).half())


def test_fingerprint_goes_through_encoder_and_decoder(
    graphs: Graphs, model: Sam2Model, embeddings: list[Tensor]
) -> None:
    with torch.no_grad():
        fingerprints = graphs.encoder(images(2))[3]
    assert fingerprints.tolist() == [[fingerprint_of(model)]] * 2
    foreign = [*embeddings[:3], torch.tensor([[fingerprint_of(model) + 1]])]
    prompts = (random_points(1, 1), torch.ones(1, 1, dtype=torch.int32))
    with torch.no_grad():
        *_, matches = graphs.decoder(
            *foreign, *prompts, torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1)
        )
    assert matches.tolist() == [False]


def test_channels_are_known_to_the_decoder(graphs: Graphs) -> None:
    assert graphs.decoder.embed_channels == CHANNELS
