"""Names of the VAE's tensors: those of `Wan2.1_VAE.pth`, and those of diffusers."""

from __future__ import annotations

WIDTHS = (1, 2, 4, 4)
"""Channels of each size of picture, in units of the widest picture's."""
RESIDUALS = 2
"""Residual blocks at each size, one more in the decoder."""

RESIDUAL = {
    "residual.0.gamma": "norm1.gamma",
    "residual.2.weight": "conv1.weight",
    "residual.2.bias": "conv1.bias",
    "residual.3.gamma": "norm2.gamma",
    "residual.6.weight": "conv2.weight",
    "residual.6.bias": "conv2.bias",
    "shortcut.weight": "conv_shortcut.weight",
    "shortcut.bias": "conv_shortcut.bias",
}
RESAMPLE = ("resample.1.weight", "resample.1.bias", "time_conv.weight", "time_conv.bias")
ATTENTION = ("norm.gamma", "to_qkv.weight", "to_qkv.bias", "proj.weight", "proj.bias")


def original_names() -> dict[str, str]:
    """Map the original names to those of diffusers.

    Source: huggingface/diffusers scripts/convert_wan_to_diffusers.py; Wan-Video/Wan2.1 wan/modules/vae.py.
    """
    names: dict[str, str] = {}
    for part in ("weight", "bias"):
        names |= {f"conv1.{part}": f"quant_conv.{part}", f"conv2.{part}": f"post_quant_conv.{part}"}
        for side in ("encoder", "decoder"):
            names[f"{side}.conv1.{part}"] = f"{side}.conv_in.{part}"
            names[f"{side}.head.2.{part}"] = f"{side}.conv_out.{part}"
    for side in ("encoder", "decoder"):
        names[f"{side}.head.0.gamma"] = f"{side}.norm_out.gamma"
        names |= {f"{side}.middle.1.{leaf}": f"{side}.mid_block.attentions.0.{leaf}" for leaf in ATTENTION}
        for old, new in ((0, 0), (2, 1)):
            names |= _residual(f"{side}.middle.{old}", f"{side}.mid_block.resnets.{new}")
    return names | _ladder_names()


def _ladder_names() -> dict[str, str]:
    """Names of the blocks that go down in the encoder and up in the decoder."""
    names: dict[str, str] = {}
    for level in range(len(WIDTHS)):
        is_last = level == len(WIDTHS) - 1
        down = level * (RESIDUALS + 1)
        for index in range(down, down + RESIDUALS):
            names |= _residual(f"encoder.downsamples.{index}", f"encoder.down_blocks.{index}")
        up = level * (RESIDUALS + 2)
        for index in range(RESIDUALS + 1):
            new = f"decoder.up_blocks.{level}.resnets.{index}"
            names |= _residual(f"decoder.upsamples.{up + index}", new)
        if not is_last:
            old, end = f"decoder.upsamples.{up + RESIDUALS + 1}", down + RESIDUALS
            for leaf in RESAMPLE:
                names[f"{old}.{leaf}"] = f"decoder.up_blocks.{level}.upsamplers.0.{leaf}"
                names[f"encoder.downsamples.{end}.{leaf}"] = f"encoder.down_blocks.{end}.{leaf}"
    return names


def _residual(old: str, new: str) -> dict[str, str]:
    return {f"{old}.{leaf}": f"{new}.{renamed_leaf}" for leaf, renamed_leaf in RESIDUAL.items()}
