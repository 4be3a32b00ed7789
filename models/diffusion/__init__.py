"""Diffusion without a network: noise schedule, denoiser, samplers. Works alike on np.ndarray and jt.Var."""
