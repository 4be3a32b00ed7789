"""What can be trained."""

from models.stages.segformer import SegformerStage
from models.stages.unet import UNetStage
from models.stages.vae import VAEStage

STAGES = {"vae": VAEStage, "unet": UNetStage, "segformer": SegformerStage}
MAIN_STAGES = ("vae", "unet")  # what is trained, in this order, where no stage is named


def following(stage: str) -> list[str]:
    """The stage and all that build on it."""
    return [stage, *(name for name, other in STAGES.items() if stage in other.builds_on)]
