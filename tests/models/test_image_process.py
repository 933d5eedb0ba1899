"""The decoding process: the same picture as without it, ended when it takes too long, replaced afterwards."""

import os
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from google.protobuf import text_format
from image_decoding import StructureLimits, decode_image, decode_stored, squash
from image_errors import InvalidImageError
from image_process import DecodeCancelledError, DecoderLostError, ImageProcess
from pixel_types import PIXEL_TYPES
from tritonclient.grpc import model_config_pb2

from tests.photographs import photograph

CONFIG = Path(__file__).parents[2] / "models/sam2_preprocess/config.pbtxt"
COINS = photograph("coins.png")
SIDE = 64


def limits(**changed: float) -> dict[str, float]:
    config = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    declared = {name: int(value.string_value) for name, value in config.parameters.items()}
    return {name: value for name, value in declared.items() if name != "decoders"} | changed


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def black_png(width: int, height: int) -> bytes:
    """A small file of many pixels."""
    compressor = zlib.compressobj(1)
    row = bytes(1 + 3 * width)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# 288 MB of samples out of a small file: no machine does that in the twentieth of a second given below.
DEAR = black_png(12_000, 8_000)


@pytest.fixture
def process():
    one = ImageProcess(limits(), "TYPE_FP16")
    yield one
    one.close()


def test_the_defaults_in_code_are_the_configurations():
    declared = limits()
    assert all(declared[name] == value for name, value in vars(StructureLimits()).items())


@pytest.mark.parametrize("data_type", PIXEL_TYPES)
def test_the_picture_is_the_one_that_is_decoded_here(data_type):
    stored = decode_stored(COINS, 1 << 26, 10**8)
    width, height = stored.upright_size
    process = ImageProcess(limits(), data_type)
    try:
        for side, resample, crop_box in (
            (SIDE, "bilinear", None),
            (2 * SIDE, "bicubic", None),
            (SIDE, "bilinear", [10, 20, 90, 60]),
        ):
            prepared = process.prepare(COINS, side, resample, crop_box)
            expected = squash(stored, side, resample, crop_box, PIXEL_TYPES[data_type])
            assert prepared.resized.dtype == expected.dtype
            assert np.array_equal(prepared.resized, expected)
            assert prepared.original_hw == ((height, width) if crop_box is None else (40, 80))
        with pytest.raises(InvalidImageError, match="image: expected a crop_box"):
            process.prepare(COINS, SIDE, crop_box=[0, 0, width + 1, 2])
    finally:
        process.close()


def test_a_refusal_is_handed_on_and_costs_no_process(process):
    pid = process.pid
    for data in (b"GIF89a", b"", bytes(1 << 20)):
        with pytest.raises(InvalidImageError, match="image: expected"):
            process.prepare(data, SIDE)
    assert process.pid == pid


def test_a_decode_ends_after_its_processor_seconds():
    hasty = ImageProcess(limits(max_decode_seconds=0.05), "TYPE_UINT8")
    try:
        pid = hasty.pid
        with pytest.raises(InvalidImageError, match="within 0.05 s of proc.*max_decode_seconds"):
            hasty.prepare(DEAR, SIDE)
        assert not psutil.pid_exists(pid)
        assert hasty.prepare(black_png(2, 2), SIDE).resized.shape == (3, SIDE, SIDE)
    finally:
        hasty.close()


def test_nobody_waiting_ends_a_decode():
    asked = threading.Event()

    def is_cancelled() -> bool:
        asked.set()
        return True

    patient = ImageProcess(limits(), "TYPE_FP16")
    try:
        os.kill(patient.pid, signal.SIGSTOP)  # as good as a decode that never ends
        pid = patient.pid
        with pytest.raises(DecodeCancelledError):
            patient.prepare(COINS, SIDE, is_cancelled=is_cancelled)
        assert asked.is_set()
        assert not psutil.pid_exists(pid)
        assert patient.prepare(COINS, SIDE).resized.any()
    finally:
        patient.close()


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_is_replaced(process, ended_by):
    """While it is idle nobody notices; in the middle of a picture the answer says whose fault it was."""
    os.kill(process.pid, ended_by)
    psutil.wait_procs([psutil.Process(process.pid)], timeout=10)
    assert process.prepare(COINS, SIDE).resized.any()
    os.kill(process.pid, signal.SIGSTOP)
    killer = threading.Thread(target=_kill_when_asked, args=(process.pid, ended_by))
    killer.start()
    expected = DecoderLostError if ended_by == signal.SIGKILL else InvalidImageError
    with pytest.raises(expected, match="is not ready" if ended_by == signal.SIGKILL else "SIGSEGV"):
        process.prepare(COINS, SIDE)
    killer.join()
    assert process.prepare(COINS, SIDE).resized.any()


def _kill_when_asked(pid: int, ended_by: int) -> None:
    """A request lies in a stopped process's pipe after a moment; either way it ends within it."""
    time.sleep(0.3)
    os.kill(pid, ended_by)
    os.kill(pid, signal.SIGCONT)


def test_memory_beyond_the_limit_is_a_refusal():
    small = ImageProcess(limits(max_decode_memory_bytes=128 << 20), "TYPE_FP16")
    try:
        with pytest.raises(InvalidImageError, match="memory for decoding"):
            small.prepare(DEAR, SIDE)
        assert small.prepare(COINS, SIDE).resized.any()
    finally:
        small.close()


def test_a_row_of_a_hundred_million_pixels_is_a_refusal(process):
    row = black_png(99_999_999, 1)
    with pytest.raises(InvalidImageError, match="in a row or column .max_image_side.*99999999x1"):
        process.prepare(row, SIDE)
    with pytest.raises(InvalidImageError, match="memory for decoding"):
        decode_image(row, 1 << 26, 10**8, StructureLimits(max_image_side=10**8))


def test_it_ends_with_its_parent(process):
    worker = psutil.Process(process.pid)
    process._worker.end_input()
    gone, _ = psutil.wait_procs([worker], timeout=30)
    assert gone
