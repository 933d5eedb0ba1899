"""Attention over a large map is one operator of ONNX Runtime's, with the numbers of the plain ones."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import Sam2Config, Sam2Model

from export import encoder_graph
from export.encoder_graph import hiera_block
from export.layers import CONTRIB_DOMAIN

SIDE = 8


class _Block(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return hiera_block(self.block, x, fused=True)


@pytest.fixture(scope="module")
def block() -> nn.Module:
    """One of the blocks that look at the whole map, of an untrained model."""
    torch.manual_seed(0)
    model = Sam2Model(Sam2Config()).eval()
    blocks = model.vision_encoder.backbone.blocks
    return next(each for each in blocks if not each.window_size)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("most_plain", "operators"), [(SIDE**2, 0), (SIDE**2 - 1, 1)])
def test_a_large_map_has_one_operator_and_the_same_numbers(
    block: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most_plain: int,
    operators: int,
) -> None:
    monkeypatch.setattr(encoder_graph, "FUSED_TOKENS", most_plain + 1)
    x = torch.randn(1, SIDE, SIDE, block.dim)
    file = tmp_path / "block.onnx"
    with torch.no_grad():
        expected = hiera_block(block, x).numpy()
        torch.onnx.export(_Block(block), (x,), str(file), opset_version=17, dynamo=False)
    nodes = [node for node in onnx.load(file).graph.node if node.domain == CONTRIB_DOMAIN]
    assert [node.op_type for node in nodes] == ["MultiHeadAttention"] * operators
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.std()))
