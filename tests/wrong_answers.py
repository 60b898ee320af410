"What each exercise finds when it is reached, and wrong answers to it, by lesson and by the exercise's name."
import numpy as np
import pandas as pd
import torch
from scipy.stats import binom, binomtest, chi2, norm, ttest_rel
from torch import nn
from torchvision.models import get_model
from torchvision.transforms.functional import rotate

from coursekit import finetune
from coursekit.augment import color_jitter, random_affine, random_hflip
from coursekit.data import near_duplicates, split_names
from coursekit.datasets import cifar10, pets
from coursekit.fetch import catalogue
from coursekit.functions import lorenz96, mlp
from coursekit.runs import config_diff
from coursekit.splits import center_crop_all, kfold_splits
from coursekit.stats import mcnemar, wilson_interval
from coursekit.text import CharModel
from coursekit.workspace import show_table


def reached(lesson, ws): # {name: value}
    "What a lesson has made when its exercises are reached, as far as they use it, at tiny size."
    return {"extensions": False, "ws": ws, "np": np, "pd": pd, "torch": torch, "nn": nn,
            "show_table": show_table} | OWN[lesson](ws)


def own_01(ws):
    "The small images, their near-duplicates, and the catalogue."
    cifar = cifar10(ws)
    return {"table": catalogue(), "split_names": split_names, "cifar": cifar, "pairs": near_duplicates(cifar)}


def own_02(ws):
    "The networks that the first exercise is about."
    def two_networks(both, only_a, only_b, neither):
        kinds = [both, only_a, only_b, neither]
        return [np.repeat(right, kinds) for right in ([True, True, False, False], [True, False, True, False])]
    return {"wilson_interval": wilson_interval, "two_networks": two_networks,
            "pairs": {"they mostly agree": two_networks(875, 25, 5, 95)}}


def own_03(ws):
    "A small network that knows nothing, and pets in two folds."
    torch.manual_seed(0)
    model = get_model("shufflenet_v2_x0_5", weights=None, num_classes=5).eval()
    pre, splits = finetune.Pretrained("small", model, [0.5] * 3, [0.25] * 3, 32, list("abcde"), float("nan")), \
        center_crop_all(pets(ws, size=32))
    return {**vars(finetune), "get_model": get_model, "random_hflip": random_hflip, "random_affine": random_affine,
            "color_jitter": color_jitter, "pre": pre, "splits": splits, "n_epochs": 1,
            "chosen": {}, "parts": kfold_splits(splits, 2)}


def own_04(ws):
    "The configurations that the exercises vary; nothing is trained."
    final = {"dropout": [0.2, 0.3, 0.4, 0.5], "norm": "batch", "augment": ["flip", "shift"]}
    strided = {**final, "order": "norm act pool drop", "head": "average", "pool": "strided"}
    return {"config_diff": config_diff, "final": final, "strided": strided, "small": {},
            "explore": lambda configurations, title: None}


def own_12(ws):
    "Pictures, and what style transfer made of them."
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"photos": pictures, "styled": {30.: (pictures.flip(3), [])}}


def own_06(ws):
    "Two functions of the lesson, and points; nothing is trained."
    ring = np.random.default_rng(2).uniform(-3, 8, (5, 5))
    return {"mlp": mlp, "lorenz96": lorenz96, "ring": ring, "later": ring, "worth": lambda sets: None}


OWN = {"00_start": lambda ws: {}, "01_data": own_01, "02_baseline": own_02,
       "03_finetune": own_03, "04_ablate": own_04,
       "05_text": lambda ws: {"n_hidden": 8, "CharModel": CharModel}, "06_functions": own_06,
       "07_words": lambda ws: {}, "10_verify": lambda ws: {}, "11_sound": lambda ws: {}, "12_pixels": own_12,
       "13_claims": lambda ws: {}}


def drawn_chapters(goes_on=lambda test, share: test.mean() < share):
    "Chapters one by one, for as long as this says."
    def answer(chapters, share, seed):
        test = np.zeros(len(chapters), bool)
        for chapter in np.random.default_rng(seed).permutation(sorted(set(chapters))):
            if goes_on(test, share):
                test |= np.array(chapters) == chapter
        return test
    return answer


def by_counts(rule):
    "An answer about two networks from what only the first had right, only the second, and how many images there are."
    return lambda a, b: rule((a & ~b).sum(), (b & ~a).sum(), len(a))


def overlap_of_intervals(a, b):
    "1 where the intervals of the two accuracies overlap."
    (low_a, high_a), (low_b, high_b) = wilson_interval(a.sum(), len(a)), wilson_interval(b.sum(), len(b))
    return float(low_a <= high_b and low_b <= high_a)


def pairs_instead_of_images(pairs, splits):
    "Counts a test image once for each of its pairs."
    part = split_names(splits)
    return sum((part[i] == "test") != (part[j] == "test") for i, j in zip(pairs["first"], pairs["second"]))


def one_side(side, other):
    "Test images on one side of the pairs only."
    return lambda pairs, splits: len({i for i, j in zip(pairs[side], pairs[other]) if split_names(splits)[i] == "test"
                                      != split_names(splits)[j]})


def noise_alone(xb, yb):
    "Every image with noise of its own."
    return xb + 0.3 * torch.randn(xb.shape), yb


def all_alike(xb, yb):
    "Every image turned by the same angle, and its colors changed alike."
    return rotate(xb, 10.) * torch.tensor([1., 0.8, 0.6])[:, None, None], yb


def solved_width(n_in, n_out, depth, most):
    "The largest width, by trying."
    count = lambda width: sum(p.numel() for p in mlp(n_in, [width] * depth, n_out).parameters())
    return next(width for width in range(1, most) if count(width + 1) > most)


def by_first_free(found, ends, near):
    "Precision and recall where each report takes the first free word that is `near`, by its delay."
    free, hits = list(ends), 0
    for at in found:
        if taken := [e for e in free if near(at - e)][:1]:
            free.remove(taken[0])
            hits += 1
    return hits / len(found), hits / len(ends)


def by_speaker(files, parts):
    "For each speaker what `parts` makes of the positions of the others and of their own."
    who = [file.split("_")[1] for file in files]
    return {name: parts([k for k, w in enumerate(who) if w != name], [k for k, w in enumerate(who) if w == name])
            for name in who}


def walked(first, second, t):
    "On the sphere; between a code and itself there is no angle to divide by."
    w = np.arccos(np.clip(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)), -1, 1))
    with np.errstate(all="ignore"):
        return (np.sin((1 - t) * w) * first + np.sin(t * w) * second) / np.sin(w)


def unclipped(first, second, t):
    "Rounding may make the cosine of a code and itself more than 1."
    with np.errstate(all="ignore"):
        w = np.arccos(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return first if w < 1e-6 else (np.sin((1 - t) * w) * first + np.sin(t * w) * second) / np.sin(w)


def unit_walked(first, second, t):
    "As if all codes had length 1; straight between a code and itself."
    with np.errstate(all="ignore"):
        w = np.arccos(first @ second)
        return first if first is second else (np.sin((1 - t) * w) * first + np.sin(t * w) * second) / np.sin(w)


def organs_by(dice, of=lambda a, b, n: range(1, n + 1)):
    "A mean over organs, of what a function gives for each: (pixels in both, in the answer, in the truth)."
    return lambda a, b, n: np.mean([dice(((a == c) & (b == c)).sum(), (a == c).sum(), (b == c).sum())
                                    for c in of(a, b, n)] or [1.])


def there(a, b, n):
    "The organs that are in the truth or in the answer."
    return [c for c in range(1, n + 1) if (a == c).any() or (b == c).any()]


WRONG = {
    "00_start": {"n_epochs": (lambda ws: 15, lambda ws: ws.pick(tiny=1, quick=100, full=15))},
    "01_data": {
        "n_test": (lambda accuracy, half_width: accuracy * (1 - accuracy) / half_width**2, lambda accuracy,
                   half_width: 1.96**2 * accuracy / half_width**2,
                   lambda accuracy, half_width: int(1.96**2 * accuracy * (1 - accuracy) / half_width**2)),
        "leaked": (pairs_instead_of_images, lambda pairs,
                   splits: len({i for i in pairs["first"] if split_names(splits)[i] == "test"}),
                   one_side("first", "second"), one_side("second", "first"), lambda pairs, splits: 2),
        "for_a_product": (lambda table: table.index[table.task.str.contains("image classification")
                                                    & (table.commercial != "no") & (table.size_gb <= 1)].tolist(),
                          lambda table: table.index[(table.task == "image classification") & (table.commercial == "yes")
                                                    & (table.size_gb <= 1)].tolist(), lambda table: ["a", "d"]),
    },
    "02_baseline": {
        "p_value": (by_counts(lambda a, b, n: chi2.sf((a - b) ** 2 / max(a + b, 1), 1)),  # chi-square
                    by_counts(lambda a, b, n: chi2.sf(max(abs(a - b) - 1, 0) ** 2 / max(a + b, 1), 1)),  # Edwards's
                    by_counts(lambda a, b, n: 2 * norm.sf(abs(a - b) / max(a + b, 1) ** 0.5)),
                    by_counts(lambda a, b, n: binom.cdf(min(a, b), a + b, 0.5)),  # one side
                    by_counts(lambda a, b, n: binom.sf(a - 1, a + b, 0.5)),  # the first one's side
                    by_counts(lambda a, b, n: 2 * binom.cdf(min(a, b), a + b, 0.5)),  # over 1 in a tie
                    by_counts(lambda a, b, n: binomtest(int(a), int(n)).pvalue if a else 1.),  # all images are tosses
                    by_counts(lambda a, b, n: min(1., 2 * binom.cdf(min(a, b), a + b, 0.5)
                                                  - binom.pmf(min(a, b), a + b, 0.5))),  # mid-p
                    overlap_of_intervals, lambda a, b: 0.0003, lambda a, b: mcnemar(a, b),
                    lambda a, b: ttest_rel(a.astype(float), b.astype(float)).pvalue,
                    lambda a, b: mcnemar(a, b)[2] if (a & ~b).sum() > (b & ~a).sum() else 1.),
        "convolution": (lambda n_in, n_out, side: (n_out * 9 * n_in, side * side * n_out * 9 * n_in),
                        lambda n_in, n_out, side: (n_out * (9 * n_in + 1), side * side * n_out * n_in)),
    },
    "03_finetune": {
        "stronger": (lambda: [random_affine(15, 0.2, 15)], lambda: [random_hflip, color_jitter(0.3)],
                     lambda: [all_alike], lambda: [noise_alone], lambda: [random_affine(15, 0.2, 15), noise_alone],
                     lambda: [random_affine(15, 0.2, 15), color_jitter(0.3), lambda xb, yb: (xb, yb.flip(0))]),
        "smallest_side": (lambda k: 32 * k, lambda k: 32 * (k - 1)),
        "moved": (lambda before, after, head: sorted(k for k in before if k.endswith(("weight", "bias"))
                                                     and not k.startswith(head)
                                                     and not torch.equal(before[k], after[k])),
                  lambda before, after,
                  head: sorted(k for k in before if not k.startswith(head) and not torch.equal(before[k], after[k]))),
    },
    "04_ablate": {
        "optimizers": (  # Adam at SGD's rate; SGD with the decay too; the Adams without dropout
            lambda final: {"SGD": final, **{opt + str(wd): {**final, "opt": opt, "weight_decay": wd}
                                            for opt, wd in (("Adam", 0.), ("Adam", 0.01), ("AdamW", 0.01))}},
            lambda final: {"SGD": {**final, "weight_decay": 0.01},
                           **{opt + str(wd): {**final, "opt": opt, "lr": 1e-3, "weight_decay": wd}
                              for opt, wd in (("Adam", 0.), ("Adam", 0.01), ("AdamW", 0.01))}},
            lambda final: {"SGD": final,
                           **{opt + str(wd): {**final, "dropout": 0., "opt": opt, "lr": 1e-3, "weight_decay": wd}
                              for opt, wd in (("Adam", 0.), ("Adam", 0.01), ("AdamW", 0.01))}}),
        "schedules": (lambda final: {shape: {**final, "shape": shape}
                                     for shape in ("constant", "step decay", "warm-up, cosine", "restarts")},
                      lambda final: {shape: {"shape": shape} for shape in ("constant", "step decay", "warm-up, cosine",
                                                                           "restarts", "one cycle")}),
        "paired": (lambda a, b: (np.mean(a) - np.mean(b), 1.96 * np.std(np.subtract(a, b), ddof=1) / len(a) ** 0.5),
                   lambda a, b: (np.mean(a) - np.mean(b), 4.302653 * (np.var(a, ddof=1) + np.var(b, ddof=1)) ** 0.5
                                 / len(a) ** 0.5)),
        "depths": (
            lambda strided, widths: {f"{w}{skip}": {**strided, "widths": w, "skip": skip}
                                     for w in (widths, [*widths, 2 * widths[-1]]) for skip in (None, "identity")},
            lambda strided, widths: {f"{w}{skip}": {**strided, "widths": w, "dropout": d, "skip": skip}
                                     for w, d in ((widths, strided["dropout"]),
                                           ([*widths, 2 * widths[-1]], [0.2, 0.3, 0.4, 0.4, 0.5]))
                                     for skip in (None, "projection")},
            lambda strided, widths: {f"{w}{skip}": {**strided, "widths": w, "dropout": d, "skip": skip, "pool": "max"}
                                     for w, d in ((widths, strided["dropout"]),
                                                  ([*widths, 2 * widths[-1]], [0.2, 0.3, 0.4, 0.4, 0.5]))
                                     for skip in (None, "identity")}),
        "stronger": (
            lambda final: {name: {**final, "augment": [name]} for name in ("affine", "scaling", "rotation", "color",
                                                                           "cutout", "mixup")},
            lambda final: {name: {**final, "dropout": 0., "augment": ["flip", "shift", name]}
                           for name in ("affine", "scaling", "rotation", "color", "cutout", "mixup")}
                           | {"none": {}, "final": final}),
        "norms": (
            lambda final: {f"{norm}{bs}": {**final, "norm": norm, "bs": bs}
                           for norm in (None, "batch", "layer", "instance", "group") for bs in (64, 8)},
            lambda final: {f"{norm}{bs}": {**final, "norm": norm, "bs": bs, "lr": lr}
                           for norm in ("batch", "layer", "instance", "group") for bs, lr in ((64, 0.02), (8, 0.0025))},
            lambda final: {f"{norm}{bs}": {**final, "norm": norm, "bs": bs, "lr": lr, "augment": []}
                           for norm in (None, "batch", "layer", "instance", "group")
                           for bs, lr in ((64, 0.02), (8, 0.0025))}),
    },
    "05_text": {
        "my_nucleus": (lambda probs, p: {i for i, q in enumerate(probs) if q >= 1 - p}, lambda probs,
                       p: {i for i in range(len(probs)) if sum(q for q in probs if q >= probs[i]) <= p},
                       lambda probs, p: {*sorted(range(len(probs)), key=lambda i: -probs[i])[:1 if max(probs) >= p
                                                                                              else 2]}),
        "layer_parameters": (lambda kind, n_in, n_hidden: {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * n_hidden
                             * (n_in + n_hidden + 1), lambda kind, n_in, n_hidden: n_hidden * (n_in + n_hidden + 2)),
        "depths": (lambda: {f"{n} deep": {"n_layers": n, "n_hidden": 64 * n} for n in (1, 2, 3)},
                   lambda: {f"{n} deep": {"n_layers": n} for n in (1, 2)},
                   lambda: {f"{n} deep": {"kind": "GRU", "n_layers": n} for n in (1, 2, 3)},
                   lambda: {f"{n} deep": {"kind": "lstm", "n_layers": n} for n in (1, 2, 3)}),
        "remedies": (lambda own={"n_layers": 3, "n_hidden": 8}: {"plain": own, "dropout": {**own, "dropout": 0.5},
                                                                 "norm": {**own, "norm": True}},
                     lambda: {f"{n} {d} {norm}": {"n_hidden": 8, "n_layers": n, "dropout": d, "norm": norm} for n, d,
                              norm in ((1, 0, False), (3, 0.5, False), (3, 0, True), (3, 0.5, True))},
                     lambda: {f"{d} {norm}": {"n_layers": 3, "n_hidden": 16, "dropout": d, "norm": norm}
                              for d in (0., 0.5) for norm in (False, True)},
                     lambda: {f"{d} {norm}": {"n_layers": 3, "n_hidden": 8, "dropouts": d, "norm": norm}
                              for d in (0., 0.5) for norm in (False, True)}),
    },
    "06_functions": {
        "starts_needed": (lambda p, sure=0.95: round(1 / p), lambda p, sure=0.95: int(np.ceil(sure / p)),
                          lambda p, sure=0.95: max(1, round(np.log(1 - sure) / np.log(1 - min(p, 0.999)))),
                          lambda p, sure=0.95: int(np.log(1 - sure) / np.log(1 - min(p, 0.999))),
                          lambda p, sure=0.95: binom.ppf(sure, 20, p)),
        "width_for": (lambda n_in, n_out, depth, most: most // (n_in + n_out + 1),
                      lambda n_in, n_out, depth, most: max(1, int((most / depth) ** 0.5)),
                      lambda n_in, n_out, depth, most: solved_width(n_in, 1, depth, most)),
        "turned": (lambda x, y: [np.concatenate([np.roll(x, k, axis=1) for k in range(5)]), np.tile(y, (5, 1))],
                   lambda x, y: [np.tile(x, (5, 1)), np.tile(y, (5, 1))],
                   lambda x, y: [np.concatenate([np.roll(a, k, axis=1) for k in range(4)]) for a in (x, y)],
                   lambda x, y: [np.concatenate([np.roll(a, k * way, axis=1) for k in range(5)])
                                 for a, way in ((x, 1), (y, -1))],
                   lambda x, y: [np.concatenate([np.roll(a, k, axis=0) for k in range(5)]) for a in (x, y)],
                   lambda x, y: (made := np.random.default_rng(0).uniform(-3, 8, (5 * len(x), 5)), lorenz96(made))),
        "padded": (lambda numbers: [str(n) for n in numbers], lambda numbers: [f"{n:04d}" for n in numbers],
                   lambda numbers: sorted(str(n).zfill(len(str(max(numbers)))) for n in numbers),
                   lambda numbers: [str(n).zfill(len(str(len(numbers)))) for n in numbers],
                   lambda numbers: [str(n).ljust(len(str(max(numbers))), "0") for n in numbers]),
    },
    "10_verify": {
        "semi_hard": (lambda p, d: int(np.argmin(d)), lambda p, d: int(np.argmax(d)),
                      lambda p, d: next((k for k, v in enumerate(d) if v > p), int(np.argmax(d))),
                      lambda p, d: int(np.argmin([v if v > p else np.inf for v in d])),
                      lambda p, d: int(np.argmin([abs(v - p) for v in d])),
                      lambda p, d: int(np.argmin([v if v >= p else np.inf for v in d])) if max(d) > p
                      else int(np.argmax(d))),
        "rejects_at": (lambda same, different, rate: np.mean(same < np.quantile(different, rate)),
                       lambda same, different, rate: np.mean(same >= np.sort(different)[round(len(different) * rate)]),
                       lambda same, different, rate: np.mean(same >= np.quantile(different, rate)),
                       lambda same, different, rate: np.mean(same >= np.quantile(different, 1 - rate)),
                       lambda same, different, rate: rate,
                       lambda same, different, rate: np.mean(same >= np.sort(same)[round(len(same) * (1 - rate)) - 1]),
                       lambda same, different, rate: np.mean(different < np.sort(different)[round(len(different)
                                                                                                  * rate)])),
        "turned": (lambda x, y, n: (np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)]), np.tile(y, 4)),
                   lambda x, y, n: (np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)]),
                                    np.concatenate([y + k for k in range(4)])),
                   lambda x, y, n: (np.concatenate([np.rot90(x, -k, axes=(1, 2)) for k in range(4)]),
                                    np.concatenate([y + k * n for k in range(4)])),
                   lambda x, y, n: (np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)]),
                                    np.arange(4 * len(y))),
                   lambda x, y, n: (np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)]),
                                    np.arange(4 * len(y)) % (4 * n)),
                   lambda x, y, n: (x, y)),
    },
    "11_sound": {
        "label_steps": (lambda ends, n, w: [int(any(0 <= k - int(e // 64) < w for e in ends)) for k in range(n)],
                        lambda ends, n, w: [int(any(0 <= k - int(np.ceil(e / 64)) < w for e in ends))
                                            for k in range(n)],  # a step late
                        lambda ends, n, w: [int(any(-w < k - int(np.ceil(e / 64)) + 1 <= 0 for e in ends))
                                            for k in range(n)],  # before the end
                        lambda ends, n, w: [sum(0 <= k - int(np.ceil(e / 64)) + 1 < w for e in ends)
                                            for k in range(n)],  # a 2 where two labels meet
                        lambda ends, n, w: [int(any(k == int(np.ceil(e / 64)) - 1 for e in ends)) for k in range(n)]),
        "score_events": (lambda found, ends: (np.mean([any(0 <= f - e <= 0.6 for e in ends) for f in found]),
                                              np.mean([any(0 <= f - e <= 0.6 for f in found) for e in ends])),
                         lambda found, ends: by_first_free(found, ends, lambda d: abs(d) <= 0.6),
                         lambda found, ends: by_first_free(found, ends, lambda d: d >= 0),
                         lambda found, ends: by_first_free(found, ends, lambda d: 0 <= d <= 0.6)[::-1],
                         lambda found, ends: by_first_free(found, ends[::-1], lambda d: 0 <= d <= 0.6),
                         lambda found, ends: by_first_free(found, ends, lambda d: 0 < d < 0.9)),
        "leave_each_out": (lambda files: {f[0]: ([k for k, g in enumerate(files) if g[0] != f[0]],
                                                 [k for k, g in enumerate(files) if g[0] == f[0]]) for f in files},
                           lambda files: by_speaker(files, lambda rest, own: (own, rest)),
                           lambda files: by_speaker(files, lambda rest, own: (rest, own[::-1])),
                           lambda files: by_speaker(files, lambda rest, own: (sorted(rest + own), own)),
                           lambda files: by_speaker(files, lambda rest, own: ([files[k] for k in rest],
                                                                              [files[k] for k in own]))),
    },
    "07_words": {
        "loss_per_character": (lambda losses, spelling, string: sum(losses) / len(string),
                               lambda losses, spelling, string: (sum(losses) + sum(spelling)) / len(losses),
                               lambda losses, spelling, string: (sum(losses) + sum(spelling))
                               / len(string.replace(" ", ""))),
        "held_out_chapters": (lambda chapters, share, seed: np.random.default_rng(seed).random(len(chapters)) < share,
                              lambda chapters, share, seed: np.arange(len(chapters)) < share * len(chapters),
                              lambda chapters, share, seed: np.random.default_rng(seed).permutation(len(chapters))
                              < share * len(chapters),
                              lambda chapters, share, seed: np.isin(chapters, sorted(set(chapters))[:5]),
                              lambda chapters, share, seed: np.isin(chapters, np.random.default_rng(seed).permutation(
                                  sorted(set(chapters)))[:1]),
                              lambda chapters, share, seed: np.isin(chapters, np.random.default_rng(seed).permutation(
                                  sorted(set(chapters)))[:5]).astype(int),
                              drawn_chapters(lambda test, share: test.mean() <= share),
                              drawn_chapters(lambda test, share: test.mean() < 0.25),
                              lambda chapters, share, seed: drawn_chapters()(chapters, share, None),
                              lambda chapters, share, seed: drawn_chapters()(chapters, share, 0)),
    },
    "12_pixels": {
        "total_variation": (lambda x: x.diff(dim=2).abs().mean((1, 2, 3)),
                            lambda x: x.diff(dim=3).abs().mean((1, 2, 3)),
                            lambda x: x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean(),
                            lambda x: (x.diff(dim=2) ** 2).mean((1, 2, 3)) + (x.diff(dim=3) ** 2).mean((1, 2, 3)),
                            lambda x: x.diff(dim=2).mean((1, 2, 3)) + x.diff(dim=3).mean((1, 2, 3)),
                            lambda x: x.diff(dim=2).abs().sum((1, 2, 3)) + x.diff(dim=3).abs().sum((1, 2, 3)),
                            lambda x: x.diff(dim=1).abs().mean((1, 2, 3)) + x.diff(dim=2).abs().mean((1, 2, 3))),
        "organ_dice": (organs_by(lambda both, a, b: 2 * both / (a + b) if a + b else 1),
                       organs_by(lambda both, a, b: 2 * both / (a + b) if a + b else 0),
                       organs_by(lambda both, a, b: both / (a + b - both), there),
                       organs_by(lambda both, a, b: 2 * both / (a + b), lambda a, b, n: [c for c in range(1, n + 1)
                                                                                         if (b == c).any()]),
                       organs_by(lambda both, a, b: 2 * both / (a + b), lambda a, b, n: [0, *there(a, b, n)]),
                       lambda a, b, n: 2 * ((a == b) & (a > 0)).sum() / max(1, (a > 0).sum() + (b > 0).sum()),
                       lambda a, b, n: (a == b).mean()),
        "slerp": (walked, unit_walked, lambda a, b, t: (1 - t) * a + t * b, lambda a, b, t: t * a + (1 - t) * b,
                  lambda a, b, t: a if a is b else walked(a, b, np.clip(t, 0.1, 0.95)),
                  unclipped,
                  lambda a, b, t: ((1 - t) * a + t * b) / np.linalg.norm((1 - t) * a + t * b) * np.linalg.norm(a)),
    },
    "13_claims": {
        "verdict": (lambda low, high, threshold, side: "supported" if low >= threshold else "refuted",
                    lambda low, high, threshold, side: "supported" if low >= threshold
                    else "refuted" if high < threshold else "undecided",
                    lambda low, high, threshold, side: "undecided" if low <= threshold <= high else "supported"
                    if (low > threshold) == (side == "at least") else "refuted",
                    lambda low, high, threshold, side: ("supported" if low >= threshold else "refuted"
                                                        if high <= threshold else "undecided") if side == "at least"
                    else "supported" if high <= threshold else "refuted" if low > threshold else "undecided"),
        "one_draw": (lambda values, groups, rng: rng.choice(values, len(values)).mean(),
                     lambda values, groups, rng: values[np.isin(groups, rng.choice(np.unique(groups), 3))].mean(),
                     lambda values, groups, rng: np.mean([values[groups == g].mean() for g in rng.choice(
                         np.unique(groups), 3)]),
                     lambda values, groups, rng: np.concatenate([values[groups == g] for g in rng.choice(groups, 3)]
                                                                ).mean(),
                     lambda values, groups, rng: values.mean()),
        "product_score": (lambda unit, a, b, c: unit @ (unit[b] - unit[a] + unit[c]),
                          lambda unit, a, b, c: (unit @ unit[b]) * (unit @ unit[c]) / (unit @ unit[a] + 0.001),
                          lambda unit, a, b, c: (unit @ unit[b] + 1) * (unit @ unit[c] + 1) / (unit @ unit[a] + 1.001)),
    },
}
