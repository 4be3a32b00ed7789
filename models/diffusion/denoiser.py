"""From a network's prediction to (x_0, noise), and classifier-free guidance: all that samplers see of a network.

Guided sampling with one network call a step; `unet` and `conditions` stand for any network and its inputs:

    branches = guidance_branches(mask_scale=3.0, reference_scale=1.5)
    conditions = ...  # for each branch in turn, the whole batch with its mask and reference kept or dropped

    def model(x, t):
        return guide(branches, unet(jt.concat([x] * len(branches)), t, conditions))

    denoiser = Denoiser(model, schedule, "v_prediction")
"""

from typing import NamedTuple

from models.diffusion.schedule import check_prediction_type


class Denoiser:
    """A network seen as an estimator of the clean picture and of the noise in x_t.

    model: callable (x [B, C, H, W], t: int) -> prediction [B, C, H, W], guidance included
    schedule: NoiseSchedule
    prediction_type: what the model predicts: "epsilon", "v_prediction" or "sample"

    Raises ValueError where the model predicts noise and the schedule ends in pure noise: x_0 cannot be had there.
    """

    def __init__(self, model, schedule, prediction_type):
        check_prediction_type(prediction_type)
        if prediction_type == "epsilon" and schedule.alphas_cumprod[-1] == 0:
            raise ValueError(
                "a model that predicts noise says nothing about a timestep of pure noise: "
                "use v_prediction with a schedule of zero terminal SNR"
            )
        self.model = model
        self.schedule = schedule
        self.prediction_type = prediction_type

    def predict(self, x, t):
        """(x_0, noise) estimated from x_t. x and both answers: [B, C, H, W]; t: int, the same for the whole batch."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        output = self.model(x, t)
        if self.prediction_type == "epsilon":
            return (x - output * sigma) / alpha, output
        if self.prediction_type == "sample":
            return output, (x - output * alpha) / sigma
        return x * alpha - output * sigma, x * sigma + output * alpha  # Salimans & Ho 2022, appendix D


class Branch(NamedTuple):
    """One evaluation of the network for guidance: the weight of its output, and the conditions it keeps."""

    weight: float
    use_mask: bool
    use_reference: bool


def guidance_branches(mask_scale, reference_scale):
    """The 1 to 3 evaluations that classifier-free guidance with a scale for each condition needs, as [Branch].

    With f(mask, reference) the network's output and 0 a dropped condition (Brooks et al. 2023, eq. 3):

        f(0, 0) + mask_scale (f(m, 0) - f(0, 0)) + reference_scale (f(m, r) - f(m, 0))

    A branch of weight 0 is left out: equal scales need two branches, both 1 only f(m, r). The weights add up to 1,
    so the guided output means the same whatever the prediction type.
    """
    branches = (
        Branch(float(1 - mask_scale), use_mask=False, use_reference=False),
        Branch(float(mask_scale - reference_scale), use_mask=True, use_reference=False),
        Branch(float(reference_scale), use_mask=True, use_reference=True),
    )
    return [branch for branch in branches if branch.weight != 0]


def guide(branches, outputs):
    """Weighted sum of the branches' outputs: [len(branches) * B, ...], branch after branch, to [B, ...]."""
    size = outputs.shape[0] // len(branches)
    guided = outputs[:size] * branches[0].weight
    for i, branch in enumerate(branches[1:], start=1):
        guided = guided + outputs[i * size : (i + 1) * size] * branch.weight
    return guided
