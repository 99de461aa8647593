"""One update rule: optimiser's step -> [pull toward the reference optimum] -> parameters.

    theta    parameters before the step          theta'   after the optimiser's step
    ref      reference optimum                   lam      how far to go toward it, 0 <= lam < 1

    none       theta'
    proximal   theta' + lam * (ref - theta')     closed form of the proximal step on f + rho/2 ||theta - ref||^2,
                                                 lam = eta*rho / (1 + eta*rho)   (EASGD, arXiv 1412.6651; FedProx)
    explicit   theta' + lam * (ref - theta)      the pull is taken where the gradient was
    literal    theta' + lam * ref                as printed in the article this project began from: it has no fixed
                                                 point at ref and grows where the curvature is zero; for comparison

On a quadratic of curvature h a gradient step of eta multiplies the distance to the fixed point by 1 - a, a = eta*h:

                 with the pull        it converges for           to
    proximal     (1 - lam)(1 - a)     -lam/(1 - lam) < a, and    optimum + lam*(ref - optimum) / (lam + a - lam*a)
                                      a < 1 + 1/(1 - lam)
    explicit     1 - a - lam          -lam < a < 2 - lam         optimum + lam*(ref - optimum) / (lam + a)
    literal      1 - a                0 < a < 2                  optimum + lam*ref / a, beyond all bounds as a -> 0

So the proximal pull only widens the optimiser's own region 0 < a < 2, the explicit one takes lam off its end, and
the literal one, where a = 0, goes n*lam*ref far in n steps: in logistic regression scores grow surer and surer.

Applied after the optimiser, like AdamW's decay: inside the gradient, Adam would rescale it by 1/sqrt(v).
"""

from typing import Literal, Protocol, Self, TypeVar

Kind = Literal["none", "proximal", "explicit", "literal"]


class Vector(Protocol):
    """What torch tensors and numpy arrays have in common here."""

    def __add__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...
    def __rmul__(self, other: float, /) -> Self: ...


V = TypeVar("V", bound=Vector)


def strength(half_life_events: float, events: int) -> float:
    """lam for a step that stands for ``events`` events: 1 - 2^(-events / half_life).

    Composes: two steps of n events pull as far as one of 2n, 1 - (1 - lam)^2.
    """
    return float(1.0 - 2.0 ** (-events / half_life_events))


def blended(kind: Kind, *, before: V, stepped: V, reference: V, lam: float) -> V:
    """The parameters after the pull; see the table above."""
    match kind:
        case "none":
            return stepped
        case "proximal":
            return stepped + lam * (reference - stepped)
        case "explicit":
            return stepped + lam * (reference - before)
        case "literal":
            return stepped + lam * reference
