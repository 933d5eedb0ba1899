"""The local `onnxruntime` backend under a real tritonserver: dtypes, shapes, errors, batches, cancels."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tests.docker.launcher import Launcher
from tests.docker.onnx_models import (
    TRITON_TO_ONNX,
    config,
    one_node,
    slow_model,
    write_onnx_model,
)
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.server

# Operators that the CPU provider has for the dtype and that change its values, where there is one.
OPERATORS = {
    "FP16": "Abs",
    "FP32": "Neg",
    "FP64": "Neg",
    "INT32": "Neg",
    "INT64": "Neg",
    "UINT8": "Abs",
    "BOOL": "Not",
}
EXPECTED: dict[str, Callable[[Any], Any]] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Not": np.logical_not,
}
# Those that the image graphs have; each is a process.
OPENVINO_TYPES = ("FP16", "FP32", "INT64", "BOOL")
MANY_THREADS = 'parameters [ { key: "intra_op_thread_count" value: { string_value: "many" } } ]'
# Calls in one batch wait for each other only because of this; the real models have no delay.
GATHER = "dynamic_batching { max_queue_delay_microseconds: 300000 preferred_batch_size: [ 8 ] }"


def parameters(**values: object) -> str:
    entries = ", ".join(
        f'{{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in values.items()
    )
    return f"parameters [ {entries} ]"


def accelerator(name: str, precision: str = "FP32") -> str:
    return (
        "optimization { execution_accelerators { cpu_execution_accelerator : [ {"
        f' name: "{name}" parameters {{ key: "precision" value: "{precision}" }} }} ] }} }}'
    )


BOUNDED = {
    "in_threes": parameters(rows_at_once=3),
    "in_few_elements": parameters(rows_at_once=100, **{"elements_at_once:x": 8}),
    "small": parameters(**{"max_elements:x": 12, "values:x": "-2..3"}),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("onnx") / "models"
    for tensor in TRITON_TO_ONNX:
        name = f"of_{tensor.lower()}"
        model = one_node(OPERATORS[tensor], tensor, ["A", "B"])
        write_onnx_model(directory, config(name, tensor, "[ -1, -1 ]"), name, model)
    write_onnx_model(
        directory,
        config("batched", "FP32", "[ -1 ]", max_batch_size=8, extra=GATHER),
        "batched",
        one_node("Neg", "FP32", ["N", "C"]),
    )
    write_onnx_model(
        directory,
        config("pairs", "FP32", "[ -1 ]", max_batch_size=8, extra=GATHER, output_dims="[ -1, 2 ]"),
        "pairs",
        pairs_model(),
    )
    for tensor in OPENVINO_TYPES:
        name = f"openvino_of_{tensor.lower()}"
        model = one_node(OPERATORS[tensor], tensor, ["A", "B"])
        text = config(name, tensor, "[ -1, -1 ]", extra=accelerator("openvino"))
        write_onnx_model(directory, text, name, model)
    text = config(
        "openvino_batched", "FP32", "[ 3 ]", max_batch_size=8, extra=accelerator("openvino")
    )
    write_onnx_model(directory, text, "openvino_batched", one_node("Neg", "FP32", ["N", 3]))
    for name, extra in BOUNDED.items():
        write_onnx_model(
            directory,
            config(name, "INT32", "[ -1, -1 ]", extra=extra),
            name,
            one_node("Neg", "INT32", ["N", "C"]),
        )
    threads = 'parameters [ { key: "intra_op_thread_count" value: { string_value: "1" } } ]'
    write_onnx_model(
        directory, config("slow", "FP32", "[ 1 ]", extra=threads), "slow", slow_model()
    )
    launcher = Launcher(
        directory, tmp_path_factory.mktemp("state") / "run", "--no-probe", "--shm-mb", "4"
    )
    try:
        yield launcher.wait_ready(PATIENCE_SECONDS).grpc_address()
    finally:
        launcher.end()


def pairs_model() -> Any:
    """[N, C] ► [N, C / 2, 2]: an odd C is an error inside ONNX Runtime."""
    from onnx import TensorProto, helper

    from tests.docker.small_repository import save_ready

    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[0, -1, 2]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    return save_ready(
        helper.make_graph(
            nodes,
            "pairs",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "C"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "P", 2])],
        )
    )


def tensor_of(array: Any, dtype: str = "FP32") -> list[Any]:
    tensor = grpc.InferInput("x", list(array.shape), dtype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def infer(address: str, model: str, array: Any, dtype: str = "FP32") -> Any:
    with grpc.InferenceServerClient(address) as client:
        return client.infer(
            model, tensor_of(array, dtype), client_timeout=PATIENCE_SECONDS
        ).as_numpy("y")


@pytest.mark.parametrize("dtype", list(TRITON_TO_ONNX))
def test_dtypes(address: str, dtype: str) -> None:
    array = np.arange(-3, 3).reshape(2, 3).astype(triton_to_np_dtype(dtype))
    result = infer(address, f"of_{dtype.lower()}", array, dtype)
    expected = EXPECTED[OPERATORS[dtype]](array)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", list(TRITON_TO_ONNX))
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_tensors_without_elements(address: str, dtype: str, shape: tuple[int, int]) -> None:
    array = np.zeros(shape, triton_to_np_dtype(dtype))
    result = infer(address, f"of_{dtype.lower()}", array, dtype)
    assert result.shape == shape
    assert result.dtype == array.dtype


@pytest.mark.parametrize("model", ["in_threes", "in_few_elements"])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 20])
def test_rows_that_are_run_in_turns_come_back_whole_and_in_order(
    address: str, model: str, rows: int
) -> None:
    array = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    np.testing.assert_array_equal(infer(address, model, array, "INT32"), -array)


def test_requests_run_in_turns_beside_each_other_get_their_own_rows(address: str) -> None:
    arrays = [np.full((40 + n, 3), n, np.int32) for n in range(8)]
    results = at_once(address, "in_threes", arrays, "INT32")
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result, -array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((13, 1), np.int32), "small: x: expected at most 12 elements .*got .*= 13"),
        (np.full((2, 2), 4, np.int32), "small: x: expected numbers from -2 to 3, got 4"),
        (np.full((2, 2), -3, np.int32), "small: x: expected numbers from -2 to 3, got -3"),
    ],
)
def test_inputs_beyond_the_limits_are_the_callers_mistake(
    address: str, array: Any, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as refused:
        infer(address, "small", array, "INT32")
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    within = np.full((2, 2), 3, np.int32)
    np.testing.assert_array_equal(infer(address, "small", within, "INT32"), -within)


def test_large_tensors(address: str) -> None:
    """Twice the first shared-memory region."""
    array = np.random.default_rng(0).random((1024, 2048), np.float32)
    np.testing.assert_array_equal(infer(address, "of_fp32", array), -array)


def test_batches_come_back_in_order(address: str) -> None:
    """Requests of different sizes and shapes, gathered by Triton, each get their own answer."""
    arrays = [np.full((1 + n % 2, 2 + n % 3), float(n), np.float32) for n in range(1, 13)]
    results = at_once(address, "batched", arrays)
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result, -array)


def test_one_bad_request_in_a_batch_gives_one_error(address: str) -> None:
    columns = [4, 4, 3, 4, 4]
    arrays = [np.full((1, n), 1.0, np.float32) for n in columns]
    results = at_once(address, "pairs", arrays)
    assert [isinstance(result, InferenceServerException) for result in results] == [
        n % 2 == 1 for n in columns
    ]
    assert "pairs" in str(results[2])
    assert results[0].shape == (1, 2, 2)
    assert infer(address, "pairs", arrays[0]).shape == (1, 2, 2)


def test_a_cancelled_request_is_not_computed(address: str) -> None:
    """One instance: while the first computes, the second waits, is cancelled and must cost nothing."""
    rounds = 300
    for _ in range(6):
        seconds = seconds_beside_a_cancelled_one(address, rounds)
        if seconds is not None:
            first, afterwards = seconds
            # The second asks for twenty times the first's work. A ratio, for a machine of any speed.
            assert afterwards < 2 * first
            return
        rounds *= 2  # the first was over before the second was cancelled
    pytest.fail("no request was ever cancelled while it waited")


def seconds_beside_a_cancelled_one(address: str, rounds: int) -> tuple[float, float] | None:
    """How long the first takes, and then one without work; None where the second may have had its turn."""
    work = np.array([rounds], np.float32)
    with grpc.InferenceServerClient(address) as client:
        started = time.monotonic()
        first = threading.Thread(target=infer, args=(address, "slow", work))
        first.start()
        time.sleep(0.3)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = client.async_infer(
            "slow", tensor_of(20 * work), lambda result, error: answers.put(error)
        )
        time.sleep(0.3)
        call.cancel()
        was_waiting = first.is_alive()
        first.join()
        over = time.monotonic()
        infer(address, "slow", np.array([0], np.float32))
        assert "CANCELLED" in str(answers.get(timeout=PATIENCE_SECONDS))
        return (over - started, time.monotonic() - over) if was_waiting else None


def at_once(address: str, model: str, arrays: list[Any], dtype: str = "FP32") -> list[Any]:
    """All requests in flight together; each one's array or exception."""
    results: list[Any] = [None] * len(arrays)

    def one(index: int) -> None:
        try:
            results[index] = infer(address, model, arrays[index], dtype)
        except InferenceServerException as error:
            results[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(arrays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("tensor", OPENVINO_TYPES)
def test_openvino_computes_the_same(address: str, tensor: str) -> None:
    array = np.array([[0, 1, 0], [1, 1, 0]]).astype(triton_to_np_dtype(tensor))
    for rows in (array, array[:1], array[:, :2]):
        expected = EXPECTED[OPERATORS[tensor]](rows)
        got = infer(address, f"openvino_of_{tensor.lower()}", rows, tensor)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_openvino_answers_many_at_once_each_its_own(address: str) -> None:
    arrays = [np.full((1, 3), number, np.float32) for number in range(20)]
    for array, got in zip(arrays, at_once(address, "openvino_batched", arrays), strict=True):
        np.testing.assert_array_equal(got, -array)


MISFITS = {
    "no_engine": (
        config("no_engine", "FP32", "[ -1, 3 ]", extra=accelerator("abacus")),
        "cpu_execution_accelerator: expected openvino or none, got abacus",
    ),
    "no_precision": (
        config("no_precision", "FP32", "[ -1, 3 ]", extra=accelerator("openvino", "INT4")),
        "accelerator openvino, precision: expected FP32 or BF16, got 'INT4'",
    ),
    "dtype": (
        config("dtype", "FP16", "[ -1, 3 ]"),
        "input 'x': declared TYPE_FP16, the graph has TYPE_FP32",
    ),
    "rank": (config("rank", "FP32", "[ -1 ]"), "input 'x': declared [-1], the graph has ['N', 3]"),
    "size": (
        config("size", "FP32", "[ -1, 4 ]"),
        "input 'x': declared [-1, 4], the graph has ['N', 3]",
    ),
    "other_output": (
        config("other_output", "FP32", "[ -1, 3 ]").replace('"y"', '"z"'),
        "output 'z' is not in the graph, which has ['y']",
    ),
    "other_input": (
        config("other_input", "FP32", "[ -1, 3 ]").replace('"x"', '"w"'),
        "the graph's inputs ['x'] are not declared",
    ),
    "many_threads": (
        config("many_threads", "FP32", "[ -1, 3 ]", extra=MANY_THREADS),
        "parameter intra_op_thread_count: expected a number >= 0, got 'many'",
    ),
}


def test_graphs_that_do_not_fit_their_configurations(tmp_path: Path) -> None:
    """All in one server, which names them all; one that fits is not among them."""
    models = tmp_path / "models"
    graph = one_node("Neg", "FP32", ["N", 3])
    for name, (text, _) in MISFITS.items():
        write_onnx_model(models, text, name, graph)
    write_onnx_model(models, config("fits", "FP32", "[ 3 ]", max_batch_size=4), "fits", graph)
    launcher = Launcher(models, tmp_path / "run", "--no-probe", "--shm-mb", "1")
    try:
        assert launcher.process.wait(PATIENCE_SECONDS) == 1
    finally:
        launcher.end()
    reasons = [
        line
        for line in launcher.output().splitlines()
        if "does not fit" in line or "parameter" in line or "accelerator" in line
    ]
    assert len(reasons) == len(MISFITS)
    for name, (_, message) in MISFITS.items():
        assert any(line.startswith(f"{name}: ") and message in line for line in reasons), name
