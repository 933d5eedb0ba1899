"""ONNX Runtime or OpenVINO on the CPU as a Python-based Triton backend, under the name of Triton's own.

For the local server, whose wheel lacks the C++ backend `onnxruntime`. A repository written for that one
loads here byte for byte; where the C++ library exists it wins and this file is not used.
"""

import json
import math
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError, check_room
from fair_lane import FairLane, LaneFullError, Place, take_on
from input_limits import (
    InvalidInputError,
    InvalidSettingError,
    check_inputs,
    cut_into_rows,
    joined,
    parse_limits,
    row_inputs,
)
from onnx_session import (
    in_plain_words,
    is_invalid_argument,
    mismatches,
    open_session,
    shrinking_run,
)

TOO_MANY_WAIT = (
    "too many requests wait to be computed already (max_waiting_requests, max_waiting_bytes); try again in"
    " a moment"
)
TOO_MANY_LARGE = (
    "too many large requests are being computed already (max_heavy_requests, max_heavy_bytes); try again in"
    " a moment"
)


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        model_file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / model_file
        if not path.is_file():
            raise pb_utils.TritonModelException(f"model {self.name}: there is no file {path}")
        parameters = {
            key: value["string_value"] for key, value in config.get("parameters", {}).items()
        }
        try:
            self.session = open_session(str(path), config, parameters)
            self._read_graph(parameters)
        except InvalidSettingError as error:
            raise pb_utils.TritonModelException(f"model {self.name}: {error}") from error
        batched = config["max_batch_size"] > 0
        problems = [
            *mismatches("input", config["input"], self.session.get_inputs(), batched),
            *mismatches("output", config["output"], self.session.get_outputs(), batched),
        ]
        if problems:
            raise pb_utils.TritonModelException(
                f"model {self.name}: {path} does not fit its config.pbtxt: {'; '.join(problems)}"
            )
        limits = self.limits
        self.light_lane = FairLane(
            limits.max_waiting_requests, limits.max_waiting_bytes, self.name, TOO_MANY_WAIT
        )
        self.heavy_lane = FairLane(
            limits.max_heavy_requests,
            limits.max_heavy_bytes,
            self.name,
            TOO_MANY_LARGE,
            gives_way=True,
        )

    def execute(self, requests):
        """Take the requests on; each is answered as soon as it is computed.

        Not concatenated: four images in one run save 6 % of a CPU's time (measured with the tiny
        encoder), and the first would wait for the last. None is computed here: Triton's own queue has no
        bound, so they wait where they are counted. A request of more rows than are run at once goes on
        beside the others, in turns with those of its kind.
        """
        for request in requests:
            take_on(self._answer(request, request.get_response_sender()))

    def finalize(self):
        self.light_lane.close()
        self.heavy_lane.close()

    def _read_graph(self, parameters):
        nodes = {node.name: node for node in self.session.get_inputs()}
        self.axes = {name: node.shape for name, node in nodes.items()}
        self.limits = parse_limits(parameters, self.axes)
        self.cut = row_inputs(self.axes)
        rows_axis = next((self.axes[name][0] for name in self.cut), None)
        shapes = {node.name: node.shape for node in self.session.get_outputs()}
        self.row_outputs = {name for name, shape in shapes.items() if shape[:1] == [rows_axis]}
        # At most: of 8 bytes an element.
        self.row_bytes = 8 * sum(
            math.prod(size for size in shapes[name][1:] if isinstance(size, int))
            for name in self.row_outputs
        )

    def _answer(self, request, sender):
        """Sends exactly one response; yields where others have their turn, at first its place."""
        try:
            response = yield from self._respond(request)
        except InvalidInputError as error:
            response = self._error(error, pb_utils.TritonError.INVALID_ARG)
        except (LaneFullError, NoSharedMemoryError) as error:
            response = self._error(error, pb_utils.TritonError.UNAVAILABLE)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            response = self._failure(error)
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _respond(self, request):
        if request.is_cancelled():
            return self._error("cancelled", pb_utils.TritonError.CANCELLED)
        self.light_lane.check_room()  # arrays are copies, which a request that is refused should not cost
        output_names = list(request.requested_output_names())
        arrays = {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.axes
        }
        check_inputs(arrays, self.axes, self.limits)
        runs = cut_into_rows(arrays, self.axes, self.limits)
        held_bytes = sum(array.nbytes for array in arrays.values())
        if len(runs) > 1:
            rows = len(arrays[next(iter(self.cut))])
            yield Place(self.heavy_lane, held_bytes + rows * self.row_bytes)
        else:
            yield Place(self.light_lane, held_bytes)
        results = []
        for number, feeds in enumerate(runs, 1):
            if request.is_cancelled():
                return self._error("cancelled", pb_utils.TritonError.CANCELLED)
            last_of_many = number == len(runs) > 1
            options = shrinking_run() if last_of_many else None
            results.append(self.session.run(output_names, feeds, options))
            if len(runs) > 1:
                yield
        whole = [name not in self.row_outputs for name in output_names]
        outputs = [np.ascontiguousarray(array) for array in joined(results, whole)]
        check_room(outputs)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, array)
                for name, array in zip(output_names, outputs, strict=True)
            ]
        )

    def _failure(self, error):
        """What a client hears of an error: no path, no region's name; the log has all of it."""
        if is_invalid_argument(error):
            message = f"the inputs do not fit the graph: {in_plain_words(error)}"
            return self._error(message, pb_utils.TritonError.INVALID_ARG)
        pb_utils.Logger.log_error(f"{self.name}: {error}")
        message = "the graph could not be run; the server's log says why"
        return self._error(message, pb_utils.TritonError.INTERNAL)

    def _error(self, error, code):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{self.name}: {error}", code))
