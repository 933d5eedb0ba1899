"""The four id cases, single flight, bounds, cancellation and failure; the encoder waits to be told."""

import asyncio
import hashlib

import pytest
from embedding_service import EmbeddingService, ImageNotFoundError, ServiceLimits
from encode_queue import EncodeLimits, EncodeQueue, OverloadedError
from image_ids import InvalidRequestError

from tests.models.factories import cache_of, embedding

A, B = b"image A", b"image B"


def content_id(image: bytes) -> str:
    return "sha256:" + hashlib.sha256(image).hexdigest()


class Encoder:
    """Encodes an image to embeddings marked by its last byte, once its gate is open."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []
        self.crops: list[tuple | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.most_running = 0

    async def __call__(self, image: bytes, crop_box=None):
        self.encoded.append(image)
        self.crops.append(crop_box)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if image.startswith(b"broken"):
            raise ValueError("image: broken")
        return embedding(mark=image[-1] if crop_box is None else crop_box[0])


def service_of(
    encoder: Encoder,
    pending_bytes: int = 1000,
    id_bytes: int = 80,
    max_image_bytes: int = 1 << 25,
) -> EmbeddingService:
    queue = EncodeQueue(encoder, EncodeLimits(2, 4, pending_bytes))
    return EmbeddingService(cache_of(100_000), queue, ServiceLimits(max_image_bytes, id_bytes))


def mark(found) -> int:
    return int(found.embedding.image_embed.flat[0])


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 10))


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_an_image_alone_is_called_by_its_content():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        first = await service.find(A, None)
        assert (first.image_id, mark(first)) == (content_id(A), A[-1])
        for again in (await service.find(A, None), await service.find(None, first.image_id)):
            assert again.embedding is first.embedding
        assert encoder.encoded == [A]
        assert (service.counts.hits, service.counts.misses, service.counts.encodes) == (2, 1, 1)

    run(scenario())


def test_an_id_alone_that_stands_for_nothing_is_not_found():
    async def scenario():
        service = service_of(Encoder())
        for unknown in ("nobody", content_id(A)):
            with pytest.raises(ImageNotFoundError, match=r"image_id: .*send the image again"):
                await service.find(None, unknown)
        assert service.counts.unknown_ids == 2

    run(scenario())


def test_a_name_moves_to_the_image_that_came_last():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        assert (await service.find(A, "photo")).image_id == "photo"
        assert mark(await service.find(None, "photo")) == A[-1]
        await service.find(B, "photo")
        assert mark(await service.find(None, "photo")) == B[-1]
        assert mark(await service.find(A, "photo")) == A[-1]
        assert mark(await service.find(None, "photo")) == A[-1]
        assert encoder.encoded == [A, B]

    run(scenario())


def test_neither_image_nor_id_is_refused():
    async def scenario():
        with pytest.raises(InvalidRequestError, match="image, image_id or both"):
            await service_of(Encoder()).find(None, None)

    run(scenario())


@pytest.mark.parametrize("bad_id", ["", "x" * 81, "é" * 41])
def test_ids_have_bounds(bad_id):
    async def scenario():
        service = service_of(Encoder())
        for image in (None, A):
            with pytest.raises(InvalidRequestError, match="image_id: expected 1 to 80 bytes"):
                await service.find(image, bad_id)

    run(scenario())


def test_a_content_id_cannot_name_other_bytes():
    async def scenario():
        service = service_of(Encoder())
        with pytest.raises(InvalidRequestError, match="image_id: expected sha256:"):
            await service.find(A, content_id(B))
        assert mark(await service.find(A, content_id(A))) == A[-1]

    run(scenario())


def test_one_image_asked_for_by_many_is_encoded_once():
    async def scenario():
        encoder = Encoder()
        encoder.gate.clear()
        service = service_of(encoder)
        asking = [asyncio.create_task(service.find(A, f"client {n}")) for n in range(10)]
        await until(lambda: encoder.running)
        by_name = asyncio.create_task(service.find(None, "client 3"))
        by_content = asyncio.create_task(service.find(None, content_id(A)))
        await asyncio.sleep(0)
        encoder.gate.set()
        answers = await asyncio.gather(*asking, by_name, by_content)
        assert {mark(found) for found in answers} == {A[-1]}
        assert encoder.encoded == [A]

    run(scenario())


def test_hits_do_not_wait_for_an_encode():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        await service.find(A, "a")
        encoder.gate.clear()
        slow = asyncio.create_task(service.find(B, None))
        await until(lambda: encoder.running)
        assert mark(await service.find(None, "a")) == A[-1]
        assert not slow.done()
        encoder.gate.set()
        await slow

    run(scenario())


def test_a_name_under_way_means_the_newer_image():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        await service.find(A, "photo")
        encoder.gate.clear()
        newer = asyncio.create_task(service.find(B, "photo"))
        await until(lambda: encoder.running)
        by_name = asyncio.create_task(service.find(None, "photo"))
        await asyncio.sleep(0)
        assert not by_name.done()
        encoder.gate.set()
        assert [mark(await newer), mark(await by_name)] == [B[-1], B[-1]]

    run(scenario())


def test_the_image_that_came_last_keeps_the_name_though_an_earlier_one_takes_longer():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        await service.find(A, None)
        encoder.gate.clear()
        slow = asyncio.create_task(service.find(B, "photo"))
        await until(lambda: encoder.running)
        await service.find(A, "photo")
        encoder.gate.set()
        assert mark(await slow) == B[-1]
        assert mark(await service.find(None, "photo")) == A[-1]

    run(scenario())


def test_a_failed_encode_fails_its_waiters_alone_and_takes_no_name():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        await service.find(A, "photo")
        encoder.gate.clear()
        waiting = [asyncio.create_task(service.find(b"broken", "photo")) for _ in range(3)]
        await until(lambda: encoder.running)
        other = asyncio.create_task(service.find(B, None))
        encoder.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError] * 3
        assert mark(await other) == B[-1]
        assert mark(await service.find(None, "photo")) == A[-1]
        assert encoder.encoded.count(b"broken") == 1
        with pytest.raises(ValueError, match="broken"):
            await service.find(b"broken", None)
        assert encoder.encoded.count(b"broken") == 2
        assert service.counts.failed_encodes == 2

    run(scenario())


def test_a_cancelled_caller_leaves_the_encode_to_the_others_and_to_the_cache():
    async def scenario():
        encoder = Encoder()
        encoder.gate.clear()
        service = service_of(encoder)
        leaving = asyncio.create_task(service.find(A, None))
        staying = asyncio.create_task(service.find(A, None))
        alone = asyncio.create_task(service.find(B, None))
        await until(lambda: encoder.running == 2)
        leaving.cancel()
        alone.cancel()
        await asyncio.wait([leaving, alone])
        encoder.gate.set()
        assert mark(await staying) == A[-1]
        await until(lambda: not service.pending_encodes)
        assert mark(await service.find(None, content_id(B))) == B[-1]

    run(scenario())


def test_encodes_are_bounded_in_number_and_bytes():
    async def scenario():
        encoder = Encoder()
        encoder.gate.clear()
        service = service_of(encoder)
        waiting = [asyncio.create_task(service.find(b"image %d" % n, None)) for n in range(4)]
        await until(lambda: service.pending_encodes == 4)
        with pytest.raises(OverloadedError, match="max_pending_encodes 4.*try again"):
            await service.find(b"one more", None)
        joined = asyncio.create_task(service.find(b"image 2", None))  # no new encode: welcome
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(*waiting, joined)
        assert encoder.most_running == 2
        with pytest.raises(OverloadedError, match="max_pending_image_bytes 1000"):
            await service.find(b"x" * 1001, None)
        assert service.counts.overloaded == 2

    run(scenario())


def test_too_large_a_file_is_refused_before_it_is_hashed_or_encoded(monkeypatch):
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder, max_image_bytes=9)
        assert (await service.find(b"nine bytes"[:9], None)).image_id
        monkeypatch.setattr("image_ids.hashlib", None)  # what is refused is never hashed
        with pytest.raises(InvalidRequestError, match="at most 9 bytes .max_image_bytes., got 10"):
            await service.find(b"nine bytes", "name")
        assert service.counts.encodes == 1

    run(scenario())


def test_forgetting_takes_all_names_and_an_encode_under_way():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        for name in ("one", "two"):
            await service.find(A, name)
        service.forget("one")
        for gone in ("one", "two", content_id(A)):
            with pytest.raises(ImageNotFoundError):
                await service.find(None, gone)
            with pytest.raises(ImageNotFoundError):
                service.forget(gone)
        encoder.gate.clear()
        under_way = asyncio.create_task(service.find(B, "three"))
        await until(lambda: encoder.running)
        service.forget("three")
        encoder.gate.set()
        assert mark(await under_way) == B[-1]
        with pytest.raises(ImageNotFoundError):
            await service.find(None, content_id(B))

    run(scenario())


def test_large_images_are_hashed_off_the_loop():
    async def scenario():
        service = service_of(Encoder(), pending_bytes=1 << 24)
        large = bytes(1 << 20)
        assert (await service.find(large, None)).image_id == content_id(large)

    run(scenario())


CROP = (7, 0, 20, 10)


def test_a_crop_is_encoded_once_and_found_by_the_images_id():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        await service.find(A, "slide")
        first = await service.find(A, "slide", CROP)
        assert mark(first) == 7
        assert first.image_id == "slide"
        for again in (
            await service.find(None, "slide", CROP),
            await service.find(None, content_id(A), CROP),
            await service.find(A, None, CROP),
        ):
            assert again.embedding is first.embedding
        assert encoder.crops == [None, CROP]
        assert mark(await service.find(None, "slide")) == A[-1]

    run(scenario())


def test_a_crop_that_is_not_kept_needs_the_image():
    async def scenario():
        service = service_of(Encoder())
        await service.find(A, "slide")
        with pytest.raises(ImageNotFoundError, match="send the image again"):
            await service.find(None, "slide", CROP)
        with pytest.raises(ImageNotFoundError):
            await service.find(None, "nobody", CROP)
        with pytest.raises(InvalidRequestError):
            await service.find(B, content_id(A), CROP)

    run(scenario())


def test_crops_are_forgotten_with_their_image_also_while_being_encoded():
    async def scenario():
        encoder = Encoder()
        service = service_of(encoder)
        await service.find(A, "slide")
        await service.find(A, None, CROP)
        encoder.gate.clear()
        under_way = asyncio.create_task(service.find(A, None, (8, 0, 20, 10)))
        await until(lambda: encoder.running)
        service.forget("slide")
        encoder.gate.set()
        assert mark(await under_way) == 8  # who asked for it gets it
        await service.find(A, "slide")
        for crop in (CROP, (8, 0, 20, 10)):
            with pytest.raises(ImageNotFoundError):
                await service.find(None, "slide", crop)

    run(scenario())


def test_a_crop_has_no_id_of_its_own():
    async def scenario():
        service = service_of(Encoder(), id_bytes=120)
        await service.find(A, None)
        await service.find(A, None, CROP)
        key = f"{content_id(A)}/7,0,20,10"
        for crop in (None, CROP):
            with pytest.raises(ImageNotFoundError):
                await service.find(None, key, crop)
        with pytest.raises(ImageNotFoundError):
            service.forget(key)

    run(scenario())
