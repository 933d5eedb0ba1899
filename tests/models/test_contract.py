"""Every config.pbtxt against every other: ensemble edges, BLS calls, and what the adapters read and write."""

import ast
from collections import Counter
from pathlib import Path

import pixel_types
import pytest
import video_graphs
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.pixels import FP16_ZERO, TRITON_TYPES
from export.shared_modules import needed_modules

MODELS = Path(__file__).parents[2] / "models"
CONFIGS = {
    path.parent.name: text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    for path in sorted(MODELS.glob("*/config.pbtxt"))
}
ENSEMBLE = CONFIGS["sam2"]
# For clients with a decoder of their own; their inputs are all needed.
FOR_CLIENTS = ["sam2.1_large_encoder", "sam2_encoder_jpeg"]
ENSEMBLES = ["sam2", *FOR_CLIENTS]
PYTHON_MODELS = [name for name, config in CONFIGS.items() if config.backend == "python"]
VIDEO_GRAPHS = [
    "sam2_mask_prompt",
    "sam2_memory_attention",
    "sam2_memory_encoder",
    "sam2_video_decoder",
]
ONNX_MODELS = [
    *("sam2_decoder", "sam2_encoder", "sam2_client_pixels", "sam2_client_features"),
    *VIDEO_GRAPHS,
]


def tensors(declared) -> dict:
    return {tensor.name: tensor for tensor in declared}


def signature(tensor, batched: bool = False):
    """Data type and full shape; a batch dimension counts as one that varies."""
    return tensor.data_type, ([-1] if batched else []) + list(tensor.dims)


def fits(producer, consumer) -> bool:
    """Whether all that one tensor may hold is what another one takes."""
    (type_a, dims_a), (type_b, dims_b) = producer, consumer
    return (
        type_a == type_b
        and len(dims_a) == len(dims_b)
        and all(b in (-1, a) for a, b in zip(dims_a, dims_b, strict=True))
    )


def test_the_repository_has_these_models():
    assert set(CONFIGS) == {
        *ONNX_MODELS,
        *ENSEMBLES,
        "sam2_embedding",
        "sam2_preprocess",
        "sam2_client_image",
        "sam2_prompt",
        "sam2_postprocess",
        "sam2_automask",
        "sam2_video",
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_its_own_name_and_how_many_instances_run(name):
    config = CONFIGS[name]
    assert config.name == name
    if name in ENSEMBLES:
        assert config.platform == "ensemble"
    else:
        assert [group.count for group in config.instance_group]
    if name in ONNX_MODELS:
        kinds = {group.kind for group in config.instance_group}
        assert kinds == {
            model_config_pb2.ModelInstanceGroup.KIND_AUTO
        }  # loads with and without a GPU


def test_the_length_of_an_image_is_bounded_alike_where_it_arrives_and_where_it_is_decoded():
    limits = {
        CONFIGS[name].parameters["max_image_bytes"].string_value
        for name in ("sam2_embedding", "sam2_preprocess")
    }
    assert len(limits) == 1


def test_the_cache_has_one_process():
    assert sum(group.count for group in CONFIGS["sam2_embedding"].instance_group) == 1


def test_no_queue_policy_on_a_model_with_one_instance():
    # It disables prefetching and stalls half a second at a time.
    for config in CONFIGS.values():
        assert not config.dynamic_batching.HasField("default_queue_policy")


@pytest.mark.parametrize("name", ENSEMBLES)
def test_no_ensemble_tensor_is_both_input_and_output(name):
    # Triton would answer with an echo of the input, without a word.
    assert not set(tensors(CONFIGS[name].input)) & set(tensors(CONFIGS[name].output))


def of_one(model, tensor):
    """A tensor's full shape in a request of one image: in an ensemble that does not batch, a batch is one."""
    return tensor.data_type, ([1] if CONFIGS[model].max_batch_size else []) + list(tensor.dims)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_ensemble_edge_fits(ensemble):
    ensemble = CONFIGS[ensemble]
    sources = {name: signature(tensor) for name, tensor in tensors(ensemble.input).items()}
    optional = {tensor.name for tensor in ensemble.input if tensor.optional}
    # Steps run when their inputs are there, in whichever order they are written.
    for step in ensemble.ensemble_scheduling.step:
        outputs = tensors(CONFIGS[step.model_name].output)
        for inner, outer in step.output_map.items():
            assert outer not in sources, f"{outer} is written twice"
            sources[outer] = of_one(step.model_name, outputs[inner])
    for step in ensemble.ensemble_scheduling.step:
        config = CONFIGS[step.model_name]
        inputs = tensors(config.input)
        assert set(step.input_map) <= set(inputs), step.model_name
        assert {n for n, t in inputs.items() if not t.optional} <= set(step.input_map)
        for inner, outer in step.input_map.items():
            taken = of_one(step.model_name, inputs[inner])
            assert fits(sources[outer], taken), (step.model_name, inner)
            assert inputs[inner].optional == (outer in optional), (step.model_name, inner)
    for name, tensor in tensors(ensemble.output).items():
        assert fits(sources[name], signature(tensor)), name


@pytest.mark.parametrize("name", FOR_CLIENTS)
def test_decoders_in_clients_get_the_same_tensors(name):
    config = CONFIGS[name]
    assert config.max_batch_size == 0  # a client sends [1, 3, S, S] as it is
    assert [signature(t) for t in config.output] == [
        signature(t) for t in CONFIGS["sam2_client_features"].output
    ]
    assert [t.name for t in config.output] == [
        "image_embed",
        "high_res_feats_0",
        "high_res_feats_1",
    ]
    assert not any(tensor.optional for tensor in config.input)
    used = {outer for step in config.ensemble_scheduling.step for outer in step.input_map.values()}
    assert set(tensors(config.input)) <= used


def test_every_public_input_is_used():
    used = {
        outer for step in ENSEMBLE.ensemble_scheduling.step for outer in step.input_map.values()
    }
    assert set(tensors(ENSEMBLE.input)) <= used
    assert all(tensor.optional for tensor in ENSEMBLE.input)


def adapter(model: str) -> ast.Module:
    return ast.parse((MODELS / model / "1" / "model.py").read_text())


def strings(node: ast.AST) -> list[str]:
    return [
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def test_every_bls_call_of_sam2_embedding_fits():
    """`call(model, tensors, outputs)`: names exist, nothing required is missing, types come back right."""
    module = adapter("sam2_embedding")
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and all(isinstance(element, ast.Constant) for element in node.value.elts)
    }
    calls = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "call"
    ]
    called = {}
    for call in calls:
        model, sent, asked = call.args
        names = [
            name
            for n in ast.walk(asked)
            if isinstance(n, ast.Name)
            for name in constants.get(n.id, ())
        ]
        called[model.value] = (
            {key.value for key in sent.keys if key is not None},
            set(strings(asked) + names),
        )
    assert set(called) == {"sam2_preprocess", "sam2_encoder", "sam2_decoder"}
    # What it keeps goes back to the decoder as it came; the ensemble's edges say that it fits.
    called["sam2_decoder"][0].update(constants["EMBEDDING_OUTPUTS"])
    for model, (sent, asked) in called.items():
        taken = tensors(CONFIGS[model].input)
        required = {name for name, tensor in taken.items() if not tensor.optional}
        assert required <= sent <= set(taken), model
        assert asked <= set(tensors(CONFIGS[model].output)), model

    preprocess, encoder, embedding = (
        CONFIGS[name] for name in ("sam2_preprocess", "sam2_encoder", "sam2_embedding")
    )
    resized = signature(tensors(preprocess.output)["resized_image"])
    assert fits(resized, signature(tensors(encoder.input)["resized_image"]))
    for name, tensor in tensors(encoder.output).items():
        one = (tensor.data_type, [1, *tensor.dims])
        assert one == signature(tensors(embedding.output)[name]), name


def test_exporter_and_preprocessing_mean_the_same_pixels():
    assert pixel_types.FP16_ZERO == FP16_ZERO
    assert list(pixel_types.PIXEL_TYPES) == [f"TYPE_{name}" for name in TRITON_TYPES.values()]


def test_what_sam2_automask_passes_on_fits():
    """From sam2_embedding to sam2_decoder, the image's inputs as sam2 has them, and nothing is left out."""
    module = adapter("sam2_automask")
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
    }
    automask, embedding, decoder, sam2 = (
        CONFIGS[name] for name in ("sam2_automask", "sam2_embedding", "sam2_decoder", "sam2")
    )
    given, taken = tensors(embedding.output), tensors(decoder.input)
    for name in constants["EMBEDDING_TENSORS"]:
        assert fits(signature(given[name]), signature(taken[name])), name
    for name in constants["IMAGE_FACTS"]:
        assert signature(given[name]) == signature(tensors(automask.output)[name]), name
    assert set(constants["PLANES"]) == set(tensors(decoder.output))
    made = next(
        n for n in ast.walk(module) if isinstance(n, ast.Dict) and "token_labels" in strings(n)
    )
    names = {key.value for key in made.keys if key is not None}
    assert names | set(constants["EMBEDDING_TENSORS"]) == set(taken)
    for name in ("image", "image_id", "mask_format"):
        assert signature(tensors(automask.input)[name]) == signature(tensors(sam2.input)[name])
    assert "crop_box" in tensors(embedding.input)
    assert signature(tensors(embedding.input)["crop_box"]) == signature(
        tensors(CONFIGS["sam2_preprocess"].input)["crop_box"]
    )


@pytest.mark.parametrize(
    ("tensor", "made_by", "taken_by"),
    [
        ("image_embed", "sam2_encoder", "sam2_memory_attention"),
        ("image_embed", "sam2_encoder", "sam2_memory_encoder"),
        ("image_embed", "sam2_encoder", "sam2_video_decoder"),
        ("high_res_feats_0", "sam2_encoder", "sam2_video_decoder"),
        ("high_res_feats_1", "sam2_encoder", "sam2_video_decoder"),
        *(("encoder_fingerprint", "sam2_encoder", name) for name in VIDEO_GRAPHS),
        ("dense_mask_input", "sam2_mask_prompt", "sam2_video_decoder"),
        ("low_res_masks", "sam2_mask_prompt", "sam2_memory_encoder"),
        ("low_res_masks", "sam2_video_decoder", "sam2_memory_encoder"),
        ("object_score_logits", "sam2_video_decoder", "sam2_memory_encoder"),
        ("memory_fingerprint", "sam2_video_decoder", "sam2_memory_attention"),
        ("memory_fingerprint", "sam2_memory_encoder", "sam2_memory_attention"),
        ("memory_fingerprint", "sam2_mask_prompt", "sam2_memory_attention"),
    ],
)
def test_what_passes_between_the_video_graphs_fits(tensor, made_by, taken_by):
    made, taken = tensors(CONFIGS[made_by].output)[tensor], tensors(CONFIGS[taken_by].input)[tensor]
    # The encoder batches; one frame goes on.
    dims = [1, *made.dims] if CONFIGS[made_by].max_batch_size else list(made.dims)
    assert fits((made.data_type, dims), signature(taken))


def test_what_is_stored_for_each_object_goes_back_into_the_attention():
    """Memories and pointers are made for B objects and taken as sets for each."""
    attention = CONFIGS["sam2_memory_attention"]
    for made_by, made, taken in (
        ("sam2_memory_encoder", "maskmem_features", "maskmem_features"),
        ("sam2_video_decoder", "obj_ptr", "obj_ptrs"),
    ):
        one = tensors(CONFIGS[made_by].output)[made]
        many = tensors(attention.input)[taken]
        assert (one.data_type, list(one.dims[1:])) == (many.data_type, list(many.dims[2:]))
    conditioned = signature(tensors(attention.output)["conditioned_embed"])
    assert fits(conditioned, signature(tensors(CONFIGS["sam2_video_decoder"].input)["image_embed"]))


@pytest.mark.parametrize(
    ("bounds", "memories", "pointers", "graph"),
    [
        ((0, 0), 70, 0, "sam2_memory_attention"),
        ((16, 31), 16, 31, "sam2_memory_attention"),
        ((16, 31), 1, 1, "sam2_memory_attention"),
        ((16, 31), 17, 31, "sam2_memory_attention_wide"),
        ((16, 31), 16, 32, "sam2_memory_attention_wide"),
        ((16, 31), 1, 0, "sam2_memory_attention_wide"),
    ],
)
def test_what_an_engine_does_not_take_goes_to_the_wide_graph(bounds, memories, pointers, graph):
    assert video_graphs.AttentionRange(*bounds).graph_for(memories, pointers) == graph


@pytest.mark.parametrize("model", VIDEO_GRAPHS)
def test_sam2_video_asks_for_what_the_video_graphs_give(model):
    assert {*video_graphs.OUTPUTS[model], video_graphs.MATCHES} <= set(
        tensors(CONFIGS[model].output)
    )


def test_the_sessions_have_one_process():
    assert sum(group.count for group in CONFIGS["sam2_video"].instance_group) == 1


@pytest.mark.parametrize("model", VIDEO_GRAPHS)
def test_every_video_graph_knows_whose_features_it_gets(model):
    config = CONFIGS[model]
    assert "encoder_fingerprint" in tensors(config.input)
    assert "fingerprint_matches" in tensors(config.output)
    memory = [*tensors(config.input), *tensors(config.output)]
    assert "memory_fingerprint" in memory


def test_the_notice_that_weights_changed_reaches_sam2_embedding():
    calls = [
        node
        for node in ast.walk(adapter("sam2_postprocess"))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "InferenceRequest"
    ]
    assert [
        keyword.value.value for keyword in calls[0].keywords if keyword.arg == "model_name"
    ] == ["sam2_embedding"]
    sent = signature(tensors(CONFIGS["sam2_postprocess"].input)["encoder_fingerprint"])
    assert sent == signature(tensors(CONFIGS["sam2_embedding"].input)["retired_fingerprint"])


@pytest.mark.parametrize("model", PYTHON_MODELS)
def test_an_adapter_names_every_tensor_and_parameter_that_its_config_declares(model):
    """What an adapter neither reads nor writes by name would be declared in vain (or misspelt)."""
    version = MODELS / model / "1"
    modules = [*version.glob("*.py"), *needed_modules(version, MODELS / "shared")]
    sources = "".join(path.read_text() for path in modules)
    config = CONFIGS[model]
    declared = Counter([*tensors(config.input), *tensors(config.output), *config.parameters])
    assert [name for name in declared if name not in sources] == []
