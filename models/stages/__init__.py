"""What can be trained, in the order in which it is."""

from models.stages.unet import UNetStage
from models.stages.vae import VAEStage

STAGES = {"vae": VAEStage, "unet": UNetStage}
