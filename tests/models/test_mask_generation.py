"""The order and the bounds of the work: batches, one ahead, crops, m2m, giving up; the decoder is a fake."""

import asyncio

import numpy as np
import pytest
from automask_settings import GenerationLimits
from generator_parameters import GeneratorParameters, InvalidParameterError
from mask_generation import Embedding, MaskGeneration, RetiredEmbeddingError
from turns import OverloadedError, Turns

SIDE = 16
HW = (64, 64)


class GoneError(Exception):
    """Nobody waits."""


class Network:
    """Encodes crops and decodes prompts: a disc around each point, on all planes; counts what is asked."""

    def __init__(self, fingerprint_of_crops: int = 1) -> None:
        self.batches: list[int] = []
        self.masked: list[int] = []
        self.crops: list[tuple] = []
        self.under_way = self.most_under_way = 0
        self.fingerprint_of_crops = fingerprint_of_crops

    async def encode(self, box):
        self.crops.append(box)
        x0, y0, x1, y1 = box
        return embedding((y1 - y0, x1 - x0), self.fingerprint_of_crops)

    async def decode(self, embedding, prompts):
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        rows = len(prompts.token_labels)
        assert prompts.token_labels.tolist() == [[1, -1]] * rows
        (self.batches if prompts.mask_input is None else self.masked).append(rows)
        centres = prompts.unit_point_coords[:, 0] * SIDE
        y, x = np.mgrid[0:SIDE, 0:SIDE]
        distance = np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None])
        planes = np.repeat((2 - distance)[:, None] * 10, 4, axis=1).astype(np.float32)
        return planes, np.full((rows, 4), 0.9, np.float32)


def embedding(hw=HW, fingerprint=1) -> Embedding:
    return Embedding({"encoder_fingerprint": np.array([[fingerprint]])}, hw)


def generation(network, check=lambda: None, limits=(1000, 21, 1000, 10**7, 8, 2), **parameters):
    defaults = {"points_per_side": 6, "stability_score_thresh": 0.5}
    return MaskGeneration(
        GeneratorParameters(**(defaults | parameters)),
        GenerationLimits(*limits),
        network.encode,
        network.decode,
        check,
    )


def run(*arguments, **parameters):
    return asyncio.run(generation(*arguments, **parameters).run(embedding()))


def test_batches_are_no_larger_than_either_bound():
    network = Network()
    found = run(network)
    assert network.batches == [8, 8, 8, 8, 4]
    assert len(found) == 36  # a disc for each point; its three planes are one to suppression
    network = Network()
    run(network, points_per_batch=5)
    assert network.batches == [5] * 7 + [1]


def test_one_batch_is_decoded_ahead_and_no_more():
    network = Network()
    run(network)
    assert network.most_under_way == 1


def test_the_size_of_batches_changes_nothing():
    one, other = run(Network()), run(Network(), points_per_batch=1)
    assert one == other


def test_each_candidate_is_refined_alone_with_its_own_mask():
    network = Network()
    run(network, use_m2m=True)
    assert sum(network.masked) == 3 * 36
    assert max(network.masked) <= 8


def test_one_mask_a_point():
    network = Network()
    work = generation(network, multimask_output=False)
    asyncio.run(work.run(embedding()))
    assert work.counts.candidates == 36


def test_crops_are_encoded_in_their_order_and_the_whole_image_is_not_again():
    network = Network()
    work = generation(network, crop_n_layers=1, crop_n_points_downscale_factor=3)
    asyncio.run(work.run(embedding()))
    assert len(network.crops) == 4
    assert network.crops[0][:2] == (0, 0)
    assert network.crops[1][0] == 0
    assert (work.counts.crops, work.counts.points) == (5, 36 + 4 * 4)


def test_crops_of_other_weights_are_refused():
    with pytest.raises(RetiredEmbeddingError):
        run(Network(fingerprint_of_crops=2), crop_n_layers=1)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_giving_up_stops_within_one_batch(steps):
    network = Network()

    def check():
        if len(network.batches) > steps:
            raise GoneError

    with pytest.raises(GoneError):
        run(network, check)
    assert len(network.batches) <= steps + 2  # the one that was under way ahead


def test_limits_are_named():
    for limits, part in (
        ((35, 21, 1000, 10**7, 8, 2), "max_points"),
        ((1000, 21, 5, 10**7, 8, 2), "max_masks"),
        ((1000, 21, 1000, 2000, 8, 2), "max_held_bytes"),
    ):
        with pytest.raises(InvalidParameterError, match=part):
            run(Network(), limits=limits)


def test_an_error_of_the_decoder_ends_the_work():
    class Broken(Network):
        async def decode(self, embedding, prompts):
            if self.batches:
                raise OSError("lost")
            return await super().decode(embedding, prompts)

    with pytest.raises(OSError, match="lost"):
        run(Broken())


def test_turns_are_taken_in_order_and_bounded():
    async def scenario():
        seen = []
        turns = Turns(1, 1, lambda running, waiting: seen.append((running, waiting)))
        order = []
        release = asyncio.Event()

        async def work(name):
            async with turns.turn():
                order.append(name)
                await release.wait()

        first, second = asyncio.create_task(work(1)), asyncio.create_task(work(2))
        while turns.waiting != 1 or turns.running != 1:
            await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="max_waiting 1"):
            await work(3)
        release.set()
        await asyncio.gather(first, second)
        assert order == [1, 2]
        assert (turns.running, turns.waiting) == (0, 0)
        assert max(running for running, _ in seen) == 1

    asyncio.run(scenario())


def test_who_leaves_while_waiting_makes_room():
    async def scenario():
        turns = Turns(1, 1, lambda running, waiting: None)
        async with turns.turn():
            waiting = asyncio.create_task(turns.turn().__aenter__())
            while not turns.waiting:
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert turns.waiting == 0
        async with turns.turn():
            assert turns.running == 1

    asyncio.run(scenario())
