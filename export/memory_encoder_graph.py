"""The memory encoder as one graph: a frame's features and B objects' masks ► what is remembered of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.layers import Module, channel_norm, dense, fp32, layer_norm


class MemoryEncoderGraph(nn.Module):
    """Masks are brought to the image's size, made black and white or soft, and fused with the features."""

    absent_object: Tensor
    encoder_fingerprint: Tensor
    memory_fingerprint: Tensor

    def __init__(self, model: Module, encoder_fingerprint: int, memory_fingerprint: int) -> None:
        super().__init__()
        self.image_size = int(model.image_size)
        self.encoder = model.memory_encoder
        self.scale = float(model.config.sigmoid_scale_for_mem_enc)
        self.shift = float(model.config.sigmoid_bias_for_mem_enc)
        absent = model.occlusion_spatial_embedding_parameter.detach().clone()
        self.register_buffer("absent_object", absent.reshape(1, -1, 1, 1))
        self.register_buffer("encoder_fingerprint", torch.tensor([encoder_fingerprint]))
        self.register_buffer("memory_fingerprint", torch.tensor([[memory_fingerprint]]))

    def forward(
        self,
        image_embed: Tensor,
        encoder_fingerprint: Tensor,
        low_res_masks: Tensor,
        object_score_logits: Tensor,
        binarize: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode B objects on one frame.

        Args:
            image_embed: FP16 [1, C, S/16, S/16], without `no_memory_embedding`.
            encoder_fingerprint: INT64 [1, 1], of these features.
            low_res_masks: FP32 [B, 1, S/4, S/4], logits.
            object_score_logits: FP32 [B, 1]; up to 0 the object is absent.
            binarize: FP32 [B], 1 for masks that come from prompts.

        Returns:
            `maskmem_features` FP16 [B, D, S/16, S/16], `memory_fingerprint` INT64 [1, 1],
            `fingerprint_matches` BOOL [1].
        """
        size = (self.image_size, self.image_size)
        logits = F.interpolate(low_res_masks, size=size, mode="bilinear", align_corners=False)
        black_and_white = (logits > 0).float()
        wanted = binarize.view(-1, 1, 1, 1) > 0.5
        masks = torch.where(wanted, black_and_white, torch.sigmoid(logits))
        x = fp32(dense(self.encoder.feature_projection, image_embed))
        x = self._fused(x + self._downsampled(masks * self.scale + self.shift))
        features = fp32(dense(self.encoder.projection, x))
        absent = (object_score_logits <= 0).float().view(-1, 1, 1, 1)
        features = features + absent * self.absent_object
        matches = encoder_fingerprint[0] == self.encoder_fingerprint
        return features.half(), self.memory_fingerprint.clone(), matches

    def _downsampled(self, masks: Tensor) -> Tensor:
        """[B, 1, S, S] ► [B, C, S/16, S/16]."""
        sampler = self.encoder.mask_downsampler
        for layer in sampler.layers:
            masks = F.gelu(channel_norm(layer.layer_norm, dense(layer.conv, masks)))
        return fp32(dense(sampler.final_conv, masks))

    def _fused(self, x: Tensor) -> Tensor:
        """ConvNeXt blocks on [B, C, S/16, S/16]; the residual stays FP32."""
        for layer in self.encoder.memory_fuser.layers:
            local = dense(layer.depthwise_conv, x).permute(0, 2, 3, 1)
            local = dense(layer.pointwise_conv1, layer_norm(layer.layer_norm, local))
            mixed = fp32(dense(layer.pointwise_conv2, F.gelu(local))) * layer.scale
            x = x + mixed.permute(0, 3, 1, 2)
        return x
