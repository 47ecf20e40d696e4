"""The preview decoder against its description: one long sequence of layers over the whole video at once."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ff_bench.models.wan import synthesis
from ff_bench.models.wan.preview import WIDTHS, PreviewNetwork, TaeHV, original_names

TINY = (16, 8, 8, 8)


def at_once(weights: dict[str, Tensor], latents: Tensor) -> Tensor:
    """Decode (B, F, 16, h, w) by the numbers of the original layers: all frames of a layer, then the next.

    0 squash, 1 convolution, 2 rectify; three times 3 memory blocks, enlarge, grow, project; 21 rectify,
    22 convolution.
    """
    batch = len(latents)
    x = functional.relu(convolve(weights, 1, torch.tanh(latents.flatten(0, 1) / 3) * 3))
    for first, growth in ((3, 1), (9, 2), (15, 2)):
        for number in range(first, first + 3):
            x = remember(weights, number, x, batch)
        x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        grown = functional.conv2d(x, weights[f"decoder.{first + 4}.conv.weight"])
        x = grown.reshape(len(x) * growth, -1, *x.shape[2:])
        x = functional.conv2d(x, weights[f"decoder.{first + 5}.weight"], padding=1)
    pictures = convolve(weights, 22, functional.relu(x)).unflatten(0, (batch, -1))[:, 3:]
    return (pictures.clamp(0, 1) * 255).round().byte().permute(0, 1, 3, 4, 2)


def convolve(weights: dict[str, Tensor], number: int | str, x: Tensor) -> Tensor:
    return functional.conv2d(
        x, weights[f"decoder.{number}.weight"], weights[f"decoder.{number}.bias"], padding=1
    )


def remember(weights: dict[str, Tensor], number: int, x: Tensor, batch: int) -> Tensor:
    video = x.unflatten(0, (batch, -1))
    before = torch.cat([torch.zeros_like(video[:, :1]), video[:, :-1]], 1).flatten(0, 1)
    y = torch.cat([x, before], 1)
    for index in (0, 2, 4):
        y = convolve(weights, f"{number}.conv.{index}", y)
        y = functional.relu(y) if index < 4 else y
    return functional.relu(y + x)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    synthesis.write_preview(tmp_path / "taew2_1.pth", TINY)
    return tmp_path / "taew2_1.pth"


def latents(frames: int = 7) -> Tensor:
    return torch.randn(2, frames, 16, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cuts", [(1, 3, 3), (3, 3, 1), (7,)])
def test_chunks_decode_as_the_whole_video(file, cuts: tuple[int, ...]) -> None:
    decoder = TaeHV.load(file, "cpu", torch.float32).decoder()
    found = torch.cat([decoder(part) for part in latents().split(cuts, 1)], 1)
    weights = {name: value.float() for name, value in torch.load(file, weights_only=True).items()}
    wanted = at_once(weights, latents())
    assert found.shape == wanted.shape == (2, 25, 32, 48, 3)
    assert (found.int() - wanted.int()).abs().max() <= 1  # of a byte: sums of convolutions in another order
    assert found.float().std() > 10
    once = TaeHV.load(file, "cpu", torch.float32).decoder()(latents())
    assert torch.equal(found, once)


def test_state_is_one_frame_per_block(file) -> None:
    decoder = TaeHV.load(file, "cpu", torch.float32).decoder()
    decoder(latents(1))
    small, middle, large = 16 * 4 * 6, 8 * 8 * 12, 8 * 16 * 24
    assert decoder.state_nbytes == 2 * 3 * (small + middle + large) * 4


def test_true_names_and_shapes() -> None:
    network = PreviewNetwork()
    assert network.state_dict().keys() == set(original_names().values())
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["entry.weight"] == (256, 16, 3, 3)
    assert [shapes[f"stages.{stage}.grow.weight"] for stage in range(3)] == [
        (256, 256, 1, 1), (256, 128, 1, 1), (128, 64, 1, 1)
    ]  # fmt: skip
    assert WIDTHS == (256, 128, 64, 64)


def test_takes_the_last_frames_of_a_file_that_grows_more(file) -> None:
    weights = torch.load(file, weights_only=True)
    wanted = TaeHV.load(file, "cpu", torch.float32).decoder()(latents())
    grow = weights["decoder.7.conv.weight"]
    torch.save({**weights, "decoder.7.conv.weight": torch.cat([torch.randn_like(grow), grow])}, file)
    assert torch.equal(TaeHV.load(file, "cpu", torch.float32).decoder()(latents()), wanted)


def test_refuses_other_files(tmp_path) -> None:
    torch.save({"decoder.conv_in.weight": torch.zeros(1)}, tmp_path / "vae.pth")
    with pytest.raises(ValueError, match="holds no TAEHV decoder"):
        TaeHV.load(tmp_path / "vae.pth", "cpu", torch.float32)
