"""From a network's prediction to (x_0, noise), and classifier-free guidance: all that samplers see of a network.

Guided sampling with one network call a step; `unet` and `conditions` stand for any network and its inputs:

    branches = guidance_branches({"mask": 3.0, "reference": 1.5})
    conditions = ...  # for each branch in turn, the whole batch with the conditions that the branch keeps

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
        self.clean = None  # x_0 as it was estimated last, [B, C, H, W]: what there is to see of a picture half-way

    def predict(self, x, t):
        """(x_0, noise) estimated from x_t. x and both answers: [B, C, H, W]; t: a timestep for the whole
        batch, or one for each, [B]."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        output = self.model(x, t)
        if self.prediction_type == "epsilon":
            self.clean, noise = (x - output * sigma) / alpha, output
        elif self.prediction_type == "sample":
            self.clean, noise = output, (x - output * alpha) / sigma
        else:
            self.clean, noise = x * alpha - output * sigma, x * sigma + output * alpha  # Salimans & Ho 2022, appendix D
        return self.clean, noise


class Branch(NamedTuple):
    """One evaluation of the network for guidance: the weight of its output, and the names of the conditions it keeps."""

    weight: float
    kept: frozenset[str]


def guidance_branches(scales: dict[str, float]) -> list[Branch]:
    """The evaluations that classifier-free guidance with a scale for each condition needs.

    With f(…) the network's output under the first conditions, in the order of `scales` (Brooks et al. 2023, eq. 3, for any number of them):

        f() + scale_1 (f(c_1) - f()) + scale_2 (f(c_1, c_2) - f(c_1)) + …

    A branch of weight 0 is left out: of two equal scales the second needs none of its own, and scales of 1 need only f(c_1, c_2, …). The
    weights add up to 1, so the guided output means the same whatever the prediction type.
    """
    names, steps = list(scales), [1.0, *scales.values(), 0.0]
    branches = [Branch(float(steps[k] - steps[k + 1]), frozenset(names[:k])) for k in range(len(names) + 1)]
    return [branch for branch in branches if branch.weight != 0]


def guide(branches, outputs, rescale=0.0):
    """Weighted sum of the branches' outputs: [len(branches) * B, ...], branch after branch, to [B, ...].

    rescale: 0..1, how far the standard deviation of each result is brought back to that of the last branch's output, which has all
    conditions (Lin et al. 2023, section 3.4): guidance adds contrast, and at low noise grain.
    """
    size = outputs.shape[0] // len(branches)
    guided = outputs[:size] * branches[0].weight
    for i, branch in enumerate(branches[1:], start=1):
        guided = guided + outputs[i * size : (i + 1) * size] * branch.weight
    if rescale == 0 or len(branches) == 1:
        return guided
    ratio = deviations(outputs[-size:]) / deviations(guided)
    return guided * (ratio * rescale + (1 - rescale))


def deviations(x):
    """Standard deviation of each of [B, C, H, W], as [B, 1, 1, 1]."""
    flat = x.reshape(x.shape[0], -1)
    centred = flat - flat.mean(1).reshape(-1, 1)
    return ((centred * centred).mean(1) ** 0.5).reshape(-1, 1, 1, 1)
