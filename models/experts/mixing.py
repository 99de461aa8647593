"""Members' answers become one: (M, K) -> [mix in several ways] -> [mix the mixes] -> (K,).

    M members   K classes (1: regression)   S stacks   A = 1 + S ways of mixing
    sure  (3, M)      of classes, so that a member is as sure as it is right: the power that its answer is raised
                      to, against what is usual; the share of labels that no power explains (noise), spread as usual:
                      q = (1 - noise) usual (p / usual)^power / sum + noise usual; and the curvature of its loss by
                      the power, of late
    share (M,)        weights that follow the best member: fixed share (Herbster & Warmuth 1998)
    stack (S, M)      of classes: softmax of sum_m stack_m log q_m + bias; of values: sum_m stack_m value_m + bias
    bias  (S, K)
    final (A,)        fixed share over the ways: the shares' mean, then each stack
    totals (M + A + 1,)  summed losses of members, ways and the whole: log-loss, or |error|
    lateness (2,)     rows, and the mean of how many labels were learned between a row's answer and its label
    unit  (2,)        of values: typical absolute error of late (a median, tracked), and rows it is of

What weighs is log-loss for classes and, for values, the absolute error in units of the typical one.
"""

import math

import numpy as np

from models.compiled import compiled
from models.experts.arrays import F32, F64
from models.experts.scores import HEAVIEST, squash
from models.snapshot import Arrays

USUAL = 0
"""The member that says how often each class comes in the long run."""
TINY = 1e-6
"""Probabilities are kept so far from 0."""
SWITCH = 1e-3
"""Share of the weight that is dealt out anew at every row."""
RATES = (0.02, 0.1)
"""Steps of the stacks, per member."""
LATENESS_STEP = 0.002
"""Part by which the mean lateness moves at least."""
PATIENCE = 1.0
"""Labels late at which steps are half as long: mixing that follows the newest labels is wise only in hindsight."""
STEADY = 20.0
"""Curvature to begin with: so sure is the power of 1."""
SURE_KEEP = 0.5 ** (1 / 1000)
"""What is kept at every row of the curvature, and of the noise."""
LEAST_SURE, MOST_SURE = 0.05, 5.0
FIRST_NOISE, MOST_NOISE = 0.01, 0.5
SLOWEST = 0.02
"""Part by which the typical absolute error moves at least, toward its median."""
SHARP = 0.5
"""Nats that a typical error of a value costs."""
DULL = 4.0
"""Typical errors beyond which a larger one costs no more: a few mishaps must not depose the best member."""
FAR = 1000.0
"""Typical errors from the first way beyond which a member's value moves a stack no further: one gone mad, as after
an absurd label, would shift the whole by the little that every way always counts."""


@compiled
def reweigh(weights: F64, losses: F64, power: float, pace: float) -> None:
    """Fixed share: each weight by exp(-power * pace * loss), then a little to all alike."""
    n, least = len(weights), losses.min()
    total = 0.0
    for i in range(n):
        weights[i] *= math.exp(-power * pace * (losses[i] - least))
        total += weights[i]
    for i in range(n):
        weights[i] = (1.0 - SWITCH * pace) * weights[i] / total + SWITCH * pace / n


@compiled
def paced(lateness: F64, late: float) -> float:
    """What steps are multiplied by; moves the typical lateness (2,), rows seen and mean of late, toward ``late``."""
    lateness[0] += 1.0
    lateness[1] += max(1.0 / lateness[0], LATENESS_STEP) * (late - lateness[1])
    return float(1.0 / (1.0 + lateness[1] / PATIENCE))


@compiled
def sure_of(p: F64, usual: F64, log_usual: F64, power: float, noise: float, evidence: F64, logs: F64, q: F64) -> None:
    """q (K,) as the table above says, and its logs (K,); evidence (K,) is log p - log usual."""
    classes, top, total = len(p), -math.inf, 0.0
    for k in range(classes):
        evidence[k] = math.log(max(p[k], TINY)) - log_usual[k]
        logs[k] = log_usual[k] + power * evidence[k]
        top = max(top, logs[k])
    for k in range(classes):
        q[k] = math.exp(logs[k] - top)
        total += q[k]
    for k in range(classes):
        q[k] = max((1.0 - noise) * q[k] / total + noise * usual[k], TINY * TINY)
        logs[k] = math.log(q[k])


@compiled
def mix_classes(
    p: F64, b: int, sure: F64, share: F64, stack: F64, bias: F64, final: F64,
    evidence: F64, q: F64, logs: F64, ways: F64, out: F64,
) -> None:  # fmt: skip
    """The ways (A, K) and their mix out (K,), from members p (M, B, K).

    On the way, evidence, q and logs (M, K) are filled as ``sure_of`` does.
    """
    members, classes = len(p), p.shape[2]
    ways[0] = 0.0
    ways[1:] = bias
    log_usual = out  # its place, until there is an answer
    for k in range(classes):
        log_usual[k] = math.log(max(p[USUAL, b, k], TINY))
    for m in range(members):
        sure_of(p[m, b], p[USUAL, b], log_usual, sure[0, m], sure[1, m], evidence[m], logs[m], q[m])
        for k in range(classes):
            ways[0, k] += share[m] * q[m, k]
            for s in range(len(stack)):
                ways[1 + s, k] += stack[s, m] * logs[m, k]
    for a in range(1, len(ways)):
        squash(ways[a])
    out[:] = 0.0
    for a in range(len(ways)):
        for k in range(classes):
            out[k] += final[a] * ways[a, k]


@compiled
def calibrate(evidence: F64, usual: F64, q: F64, true: int, weight: float, m: int, sure: F64) -> None:
    """One step of a member's noise (expectation maximisation) and of its power (Newton)."""
    noise = sure[1, m]
    by_noise = noise * usual[true] / q[true]
    mean, square = 0.0, 0.0
    for k in range(len(q)):
        share = (q[k] - noise * usual[k]) / (1.0 - noise)
        mean += share * evidence[k]
        square += share * evidence[k] * evidence[k]
    noise_step = (1.0 - SURE_KEEP) * min(weight, 1.0)
    weight *= 1.0 - by_noise
    sure[2, m] = SURE_KEEP * sure[2, m] + weight * (square - mean * mean)
    power = sure[0, m] - weight * (mean - evidence[true]) / (sure[2, m] + STEADY)
    sure[0, m] = min(max(power, LEAST_SURE), MOST_SURE)
    sure[1, m] = min(max(noise + noise_step * (by_noise - noise), TINY), MOST_NOISE)


@compiled
def predict_classes(p: F64, sure: F64, share: F64, stack: F64, bias: F64, final: F64, told: F64, out: F64) -> None:
    """Members' answers p (M, B, K) mixed: each way's told (A, B, K), and out (B, K)."""
    evidence, q, logs = np.empty((3, len(p), p.shape[2]))
    ways = np.empty((len(final), p.shape[2]))
    for b in range(p.shape[1]):
        mix_classes(p, b, sure, share, stack, bias, final, evidence, q, logs, ways, out[b])
        told[:, b] = ways


@compiled
def learn_classes(
    p: F64, y: F32, w: F32, rates: F64,
    sure: F64, share: F64, stack: F64, bias: F64, final: F64, totals: F64, told: F64, late: F64, lateness: F64,
) -> None:  # fmt: skip
    """Row by row: mix p (M, B, K), then judge members, ways and stacks by the label.

    Ways are judged by what they told (A, B, K) when the row was answered; (0, B, K) if that was now; late (B,) labels
    have been learned since.
    """
    members, classes, n_ways = len(p), p.shape[2], len(final)
    evidence, q, logs = np.empty((3, members, classes))
    ways, out = np.empty((n_ways, classes)), np.empty(classes)
    losses, way_losses = np.empty(members), np.empty(n_ways)
    for b in range(p.shape[1]):
        mix_classes(p, b, sure, share, stack, bias, final, evidence, q, logs, ways, out)
        true, weight, pace = int(y[b]), min(w[b], HEAVIEST), paced(lateness, late[b])
        for m in range(members):
            losses[m] = -logs[m, true]
        for a in range(n_ways):
            way_losses[a] = -math.log(max(told[a, b, true] if len(told) else ways[a, true], TINY))
        totals[:members] += w[b] * losses
        totals[members : members + n_ways] += w[b] * way_losses
        totals[members + n_ways] -= w[b] * math.log(max(out[true], TINY))
        for s in range(len(stack)):
            for k in range(classes):
                step = rates[s] * weight * pace * (ways[1 + s, k] - (1.0 if k == true else 0.0))
                bias[s, k] -= step
                for m in range(members):
                    stack[s, m] -= step * logs[m, k] / members
        for m in range(members):
            calibrate(evidence[m], p[USUAL, b], q[m], true, weight * pace, m, sure)
        reweigh(share, losses, weight, pace)
        reweigh(final, way_losses, weight, pace)


@compiled
def typical(unit: F64, error: float) -> float:
    """Move the typical error toward ``error``, by a factor; returns it. The first row's says nothing."""
    unit[1] += 1.0
    if unit[1] <= 2.0 or unit[0] == 0.0:
        unit[0] = error
    elif error > 0.0:
        step = max(SLOWEST, 1.0 / unit[1])
        unit[0] *= math.exp(step if error > unit[0] else -step)
    return float(max(unit[0], 1e-30))


@compiled
def median(values: F64, weights: F64) -> float:
    """The value at which half of the weights is reached."""
    order = np.argsort(values)
    reached = 0.0
    for i in order:
        reached += weights[i]
        if reached >= 0.5:
            return float(values[i])
    return float(values[order[-1]])


@compiled
def mix_values(
    p: F64, b: int, share: F64, stack: F64, bias: F64, final: F64, unit_now: F64, offs: F64, ways: F64
) -> float:
    """The ways (A,) and their median, from members p (M, B, 1); stacks weigh distances offs (M,) from the first way.

    A mean would let a stack that is far off, as one is in its first rows, shift the whole by its least weight.
    """
    ways[0] = median(p[:, b, 0], share)
    reach = FAR * unit_now[0]
    for m in range(len(p)):
        offs[m] = max(-reach, min(reach, p[m, b, 0] - ways[0]))
    for s in range(len(stack)):
        ways[1 + s] = ways[0] + bias[s, 0]
        for m in range(len(p)):
            ways[1 + s] += stack[s, m] * offs[m]
    return median(ways, final)


@compiled
def predict_values(p: F64, share: F64, stack: F64, bias: F64, final: F64, unit_now: F64, told: F64, out: F64) -> None:
    """Members' answers p (M, B, 1) mixed: each way's told (A, B, 1), and out (B, 1)."""
    offs, ways = np.empty(len(p)), np.empty(len(final))
    for b in range(p.shape[1]):
        out[b, 0] = mix_values(p, b, share, stack, bias, final, unit_now, offs, ways)
        told[:, b, 0] = ways


@compiled
def learn_values(
    p: F64, y: F32, w: F32, rates: F64,
    share: F64, stack: F64, bias: F64, final: F64, unit_now: F64, totals: F64, told: F64, late: F64, lateness: F64,
) -> None:  # fmt: skip
    """Row by row: mix p (M, B, 1), then judge members, ways and stacks by the value; told as for classes."""
    members, n_ways = len(p), len(final)
    ways, losses, way_losses, offs = np.empty(n_ways), np.empty(members), np.empty(n_ways), np.empty(members)
    for b in range(p.shape[1]):
        said = mix_values(p, b, share, stack, bias, final, unit_now, offs, ways)
        weight, pace = min(w[b], HEAVIEST), paced(lateness, late[b])
        for m in range(members):
            losses[m] = abs(p[m, b, 0] - y[b])
        for a in range(n_ways):
            way_losses[a] = abs((told[a, b, 0] if len(told) else ways[a]) - y[b])
        totals[:members] += w[b] * losses
        totals[members : members + n_ways] += w[b] * way_losses
        totals[members + n_ways] += w[b] * abs(said - y[b])
        unit = typical(unit_now, abs(said - y[b]))
        for s in range(len(stack)):
            off = max(-2.0, min(2.0, (ways[1 + s] - y[b]) / unit))
            norm = 1.0
            for m in range(members):
                norm += (offs[m] / unit) ** 2
            bias[s, 0] -= rates[s] * weight * pace * off * unit / norm
            for m in range(members):
                stack[s, m] -= rates[s] * weight * pace * off * offs[m] / unit / norm
        np.minimum(losses / unit, DULL, losses)
        np.minimum(way_losses / unit, DULL, way_losses)
        reweigh(share, losses, SHARP * weight, pace)
        reweigh(final, way_losses, SHARP * weight, pace)


class Mixing:
    """The weights of M members and the ways of mixing them."""

    def __init__(self, members: int, classes: int) -> None:
        stacks = len(RATES)
        self.ways = 1 + stacks
        self.share = np.full(members, 1.0 / members)
        self._rates = np.array(RATES)
        self._sure = np.stack([np.ones(members), np.full(members, FIRST_NOISE), np.zeros(members)])
        self._stack = np.full((stacks, members), 1.0 / members if classes > 1 else 0.0)
        self._bias = np.zeros((stacks, classes))
        self._final = np.full(self.ways, 1.0 / self.ways)
        self._unit = np.zeros(2)
        self._lateness = np.zeros(2)
        self.totals = np.zeros(members + self.ways + 1)

    def predict(self, p: F64) -> tuple[F64, F64]:
        """Members' answers (M, B, K) mixed: (B, K), and what each way tells: (A, B, K)."""
        out, told = np.empty(p.shape[1:]), np.empty((self.ways, *p.shape[1:]))
        if p.shape[2] == 1:
            predict_values(p, self.share, self._stack, self._bias, self._final, self._unit, told, out)
        else:
            predict_classes(p, self._sure, self.share, self._stack, self._bias, self._final, told, out)
        return out, told

    def learn(self, p: F64, y: F32, w: F32, told: F64 | None = None, late: F64 | None = None) -> None:
        """Row by row: mix, then judge members and ways by the label.

        Args:
            told: what the ways told (A, B, K), where they were asked before now.
            late: (B,) labels learned between then and now.
        """
        then = np.empty((0, *p.shape[1:])) if told is None else told
        since = np.zeros(len(y)) if late is None else late
        if p.shape[2] == 1:
            learn_values(
                p, y, w, self._rates, self.share, self._stack, self._bias, self._final, self._unit, self.totals,
                then, since, self._lateness,
            )  # fmt: skip
        else:
            learn_classes(
                p, y, w, self._rates, self._sure, self.share, self._stack, self._bias, self._final, self.totals,
                then, since, self._lateness,
            )  # fmt: skip

    def weights(self) -> F64:
        """(M,) what each member counts: its share, and its part of the stacks, weighted as the ways are."""
        parts = np.abs(self._stack)
        parts /= np.maximum(parts.sum(axis=1, keepdims=True), 1e-30)
        found: F64 = self._final[0] * self.share + self._final[1:] @ parts
        return found

    def grow(self, classes: int) -> None:
        self._bias = np.pad(self._bias, ((0, 0), (0, classes - self._bias.shape[1])))

    def state(self) -> Arrays:
        return {
            "sure": self._sure.copy(),
            "share": self.share.copy(),
            "stack": self._stack.copy(),
            "bias": self._bias.copy(),
            "final": self._final.copy(),
            "unit": self._unit.copy(),
            "lateness": self._lateness.copy(),
            "totals": self.totals.copy(),
        }

    def load(self, state: Arrays) -> None:
        self._sure, self.share, self._stack, self._bias, self._final, self._unit, self._lateness, self.totals = (
            state[name].astype(np.float64)
            for name in ("sure", "share", "stack", "bias", "final", "unit", "lateness", "totals")
        )
