"""What each part of the main system is worth: takes one away in turn, trains, paints and scores, and prints a table.

    python tests/benchmarks/ablation.py --input_path <training set> --test_path <test set> --img_path <photos> --output_path ablation

Preset tiny, for two CPU cores: half an hour for the whole system, and for each part the time of the stages that it changes; what comes
before them is shared. All that is done stays in --output_path, so the same command goes on where it was cut short.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.commands import HEAD, call, copied, line, painted_and_scored
from utils.errors import or_exit

STAGES = {
    "vae": "--steps 3000 --batch_size 2 --vae_crop_width 64 --vae_crop_height 64 --warmup 50 --ema 0.999",
    "unet": "--steps 1000 --batch_size 8 --max_norm 1 --warmup 50 --ema 0.995",
    "decoder": "--steps 1000 --batch_size 4 --warmup 20 --lr 2e-4 --ema 0.99 "
    "--decoder_perceptual_weight 0.5 --decoder_adversarial_weight 0.1 --decoder_painted 64",
}
EVERY = "--preset tiny --validate_every 500 --preview_every 500 --save_every 100"
TAKEN_AWAY = {  # the first stage that it changes, and how
    "nothing": ("decoder", ""),
    "the linear start": ("unet", "--unet_linear_start 0"),
    "whitening": ("unet", "--unet_whiten 0"),
    "the linear start and whitening": ("unet", "--unet_linear_start 0 --unet_whiten 0"),
    "the perceptual loss": ("decoder", "--decoder_perceptual_weight 0"),
    "the adversarial loss": ("decoder", "--decoder_adversarial_weight 0"),
    "noise on the latents": ("decoder", "--decoder_latent_noise 0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("input_path", "test_path", "img_path", "output_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--judge", type=Path, help="a run of system judge")
    args = parser.parse_args()
    output, names = args.output_path.resolve(), list(STAGES)
    judge = ("--judge", args.judge) if args.judge else ()

    def train(folder: Path, stage: str, changes: str = "") -> None:
        words = f"{STAGES[stage]} {EVERY} {changes}".split()
        call("MainTrain.py", "--run", folder, "--stage", stage, "--input_path", args.input_path, "--val_path", args.test_path, *words)

    source = None
    for stage in names[:-1]:
        after = output / f"after {stage}"
        source = copied(source, after) if source else after
        train(source, stage)

    def score(title: str, run: Path, *words) -> str:
        words = ("--checkpoint", run, "--input_path", args.test_path, "--img_path", args.img_path, "--color_match", "none", *judge, *words)
        return line(title, painted_and_scored(output / title, *words))

    lines = []
    for title, (first, changes) in TAKEN_AWAY.items():
        place = names.index(first)
        run = copied(output / f"after {names[place - 1]}", output / "runs" / title.replace(" ", "-"))
        for stage in names[place:]:
            train(run, stage, changes if stage == first else "")
        lines.append(score(title, run))
        print(lines[-1], flush=True)
    whole = output / "runs" / "nothing"
    lines.append(score("guidance", whole, "--guidance", 1, "--ref_guidance", 1))
    lines.append(score("guidance at low noise", whole, "--guidance_low", 0.4))
    print("\n" + "\n".join([HEAD.format("taken away"), *lines]))


if __name__ == "__main__":
    or_exit(main)
