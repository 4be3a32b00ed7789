"""All styles of a folder by one command, and all their prompts painted by another."""

import json

import jittor as jt
import numpy as np
from PIL import Image

from datasets.styles import check_styles
from datasets.synthetic.write_styles import write_styles
from models.networks.pretrained import save_network
from models.networks.text_encoder import save_tokenizer, train_tokenizer
from models.stages.unet import UNetStage
from models.systems import SYSTEMS
from models.training.run import Run, write_run
from tests.models.stages.test_stages import untrained_autoencoder
from tests.models.stages.test_text_alone import TEXT
from tests.small import COMMON, OPTIONS, arguments
from tests.test_commands import one_sentence, run


def write_small_text_run(folder, captions):
    """A run of words alone whose networks are as they begin."""
    jt.set_global_seed(0)
    vae = untrained_autoencoder()
    vae.config.scaling_factor = 1.0
    save_network(vae, vae.state_dict(), folder / "vae", 4)
    for name, network in UNetStage(TEXT, folder).learners["unet"].networks.items():
        save_network(network, network.state_dict(), folder / name, 4)
    save_tokenizer(train_tokenizer(captions, TEXT.text_vocabulary), folder)
    options = SYSTEMS["text"].presets["tiny"] | {"vae": OPTIONS["vae"], "unet": TEXT}
    write_run(Run(folder, "text", "tiny", options))


def test_all_styles_are_trained_and_all_prompts_painted(data, tmp_path):
    folder, styles, output = tmp_path / "run", tmp_path / "styles", tmp_path / "results"
    write_styles(styles, styles=2, pictures=3, prompts=2, size=(96, 64))
    write_small_text_run(folder, [pair.captions[0] for pairs in check_styles(styles).values() for pair in pairs])
    train = ["--input_path", data, "--run", folder, "--val_fraction", 0.3, "--stage", "style", *arguments("style")]
    one_sentence(run("MainTrain.py", *train), "--style_pictures must name the folder of the styles")
    one_sentence(run("MainTrain.py", *train, "--style_pictures", styles, "--style_width", 128), "--style_width 128, but the UNet's is 96")
    result = run("MainTrain.py", *train, "--style_pictures", styles)
    assert result.returncode == 0, result.stderr
    assert result.stdout.index("Stage style: 01\n") < result.stdout.index("Stage style: 02\n")
    assert all((folder / "style" / number / "adapter" / "config.json").is_file() for number in ("01", "02"))

    paint = ["--checkpoint", folder, "--input_path", styles, "--output_path", output, "--steps", 2, "--text_guidance", 1]
    result = run("MainTest.py", *paint)
    assert result.returncode == 0, result.stderr
    wanted = [f"{style}/{text}.png" for style in ("01", "02") for text in json.loads((styles / style / "prompt.json").read_text()).values()]
    assert sorted(path.relative_to(output).as_posix() for path in output.glob("*/*")) == sorted(wanted)
    assert Image.open(output / wanted[0]).size == (COMMON["width"], COMMON["height"])
    seeds = json.loads((output / "seeds.json").read_text())
    assert seeds["seed"] == 0 and len({*seeds["pictures"].values()}) == len(wanted) == len(seeds["pictures"])

    before = (output / wanted[1]).read_bytes()
    (output / wanted[1]).unlink()
    (output / wanted[0]).write_bytes((output / wanted[2]).read_bytes())
    assert run("MainTest.py", *paint).returncode == 0
    assert (output / wanted[1]).read_bytes() == before and (output / wanted[0]).read_bytes() == (output / wanted[2]).read_bytes()

    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    damaged = np.frombuffer(weights.read_bytes(), np.uint8).copy()
    damaged[damaged.size // 2 :] ^= 1  # another UNet
    weights.write_bytes(damaged.tobytes())
    one_sentence(run("MainTest.py", *paint, "--overwrite"), "style/01/adapter", "other weights of unet")
