"""An array that counts the FLOPs of what is done with it, for NumPy models."""

import math

import numpy as np


class Counted(np.ndarray):
    """Matrix products cost two FLOPs for each pair of numbers they multiply;
    all else is free, and so is looking a row up.
    """

    flops = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(x) for x in inputs]
        kwargs.pop("out", None)
        out = np.asarray(getattr(ufunc, method)(*plain, **kwargs))
        if ufunc is np.matmul:
            Counted.flops += 2 * plain[0].shape[-1] * out.size
        return out.view(Counted)

    def __array_function__(self, func, types, args, kwargs):
        if func is np.einsum:
            letters = args[0].split("->")[0].replace(",", "")
            sizes = [n for x in args[1:] for n in x.shape]
            Counted.flops += 2 * math.prod(dict(zip(letters, sizes)).values())
        out = super().__array_function__(func, types, args, kwargs)
        return out.view(Counted) if isinstance(out, np.ndarray) else out


def counted(model):
    """The same NumPy model, with weights that count."""
    weights = {name: w.view(Counted) for name, w in model.weights.items()}
    return type(model)(model.config, weights)
