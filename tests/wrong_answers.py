"What each exercise finds when it is reached, and wrong answers to it, by lesson and by the exercise's name."
import numpy as np
import pandas as pd
import torch
from scipy.stats import binom, binomtest, chi2, norm, t, ttest_rel
from torch import nn
from torchvision.models import get_model
from torchvision.transforms.functional import rotate

from coursekit import finetune
from coursekit.ablate import network
from coursekit.augment import color_jitter, random_affine, random_hflip
from coursekit.data import near_duplicates, split_names
from coursekit.datasets import cifar10, pets
from coursekit.fetch import catalogue
from coursekit.functions import mlp
from coursekit.runs import config_diff, count_params_flops
from coursekit.splits import center_crop_all, kfold_splits
from coursekit.stats import mcnemar, wilson_interval
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
    "The family of networks; nothing is trained."
    strided = {"norm": "batch", "order": "norm act pool drop", "head": "average", "pool": "strided"}
    return {"config_diff": config_diff, "network": network, "count_params_flops": count_params_flops,
            "first": strided["order"], "strided": strided}


OWN = {"00_start": lambda ws: {}, "01_data": own_01, "02_baseline": own_02,
       "03_finetune": own_03, "04_ablate": own_04,
       "05_text": lambda ws: {"n_hidden": 8, "poem_units": 16}, "06_functions": lambda ws: {"mlp": mlp}}


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


def by_name(a, b, n):
    "The arguments that differ, and nothing that follows from them."
    usual = {"n_epochs": 15, "bs": 64}
    return {*config_diff({**usual, **a}, {**usual, **b})}


def what_names_suggest(a, b):
    "Consequences told from the arguments' names, without building a network or counting a step."
    suggested = {"bs": ["steps"], "n_epochs": ["steps", "images seen"], "norm": ["parameters"]}
    other = {name: ["parameters", "operations"] for name in ("n_hidden", "skip", "pool", "widths")}
    return {word for name in by_name(a, b, 0) for word in {**suggested, **other}.get(name, [])}


def parameters_alone(a, b, n):
    "All but the operations."
    counted = [sum(p.numel() for p in network(**{k: v for k, v in c.items() if k not in ("bs", "lr", "n_epochs")})
                   .parameters()) for c in (a, b)]
    steps, images = zip(*((c.get("n_epochs", 15) * -(-n // c.get("bs", 64)), c.get("n_epochs", 15)) for c in (a, b)))
    return by_name(a, b, n) | {word for word, (x, y) in {"parameters": counted, "steps": steps,
                                                         "images seen": images}.items() if x != y}


def judged(**instead):
    "The right judgment of claims, but for those that are given."
    right = {"better": lambda row: row.low > 0, "not found": lambda row: row.low <= 0 <= row.high,
             "none": lambda row: False, "small": lambda row: -1 < row.low and row.high < 1,
             "order": lambda row: binomtest(sum(d > 0 for d in row.by_seed), len(row.by_seed)).pvalue < 0.05}
    return lambda row, claim: {**right, **instead}[claim](row)


def noise_alone(xb, yb):
    "Every image with noise of its own."
    return xb + 0.3 * torch.randn(xb.shape), yb


def all_alike(xb, yb):
    "Every image turned by the same angle, and its colors changed alike."
    return rotate(xb, 10.) * torch.tensor([1., 0.8, 0.6])[:, None, None], yb


WRONG = {
    "00_start": {"n_epochs": (lambda ws: 15, lambda ws: ws.pick(tiny=1, quick=100, full=15))},
    "01_data": {
        "n_test": (lambda accuracy, half_width: accuracy * (1 - accuracy) / half_width**2, lambda accuracy,
                   half_width: 1.96**2 * accuracy / half_width**2),
        "leaked": (pairs_instead_of_images, lambda pairs,
                   splits: len({i for i in pairs["first"] if split_names(splits)[i] == "test"}),
                   one_side("first", "second"), one_side("second", "first")),
        "for_a_product": (lambda table: table.index[table.task.str.contains("image classification")
                                                    & (table.commercial != "no") & (table.size_gb <= 1)].tolist(),
                          lambda table: table.index[(table.task == "image classification") & (table.commercial == "yes")
                                                    & (table.size_gb <= 1)].tolist()),
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
        "what_changes": (by_name,
                         lambda a, b, n: by_name(a, b, n) | {"parameters", "operations", "steps", "images seen"},
                         lambda a, b, n: by_name(a, b, n) | what_names_suggest(a, b), parameters_alone),
        "supported": (lambda row, claim: True, lambda row, claim: False,
                      judged(better=lambda row: row.difference > 0),
                      judged(order=lambda row: len({d > 0 for d in row.by_seed}) == 1),
                      judged(order=lambda row: not row.low <= 0 <= row.high),
                      judged(none=lambda row: row.low <= 0 <= row.high),
                      judged(small=lambda row: abs(row.difference) < 1),
                      judged(**{"not found": lambda row: row.low <= 0})),
        "paired": (lambda a, b: (np.mean(a) - np.mean(b), 1.96 * np.std(np.subtract(a, b), ddof=1) / len(a) ** 0.5),
                   lambda a, b: (np.mean(a) - np.mean(b), t.ppf(0.975, 2 * len(a) - 2)
                                 * (np.var(a, ddof=1) + np.var(b, ddof=1)) ** 0.5 / len(a) ** 0.5),
                   lambda a, b: (np.mean(a) - np.mean(b), t.ppf(0.975, len(a) - 1) * np.std(np.subtract(a, b))
                                 / len(a) ** 0.5)),
    },
    "05_text": {
        "my_nucleus": (lambda probs, p: {i for i, q in enumerate(probs) if q >= 1 - p}, lambda probs,
                       p: {i for i in range(len(probs)) if sum(q for q in probs if q >= probs[i]) <= p}),
        "layer_parameters": (lambda kind, n_in, n_hidden: {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * n_hidden
                             * (n_in + n_hidden + 1), lambda kind, n_in, n_hidden: n_hidden * (n_in + n_hidden + 2)),
        "depths": (lambda: {f"{n} deep": {"n_layers": n, "n_hidden": 64 * n} for n in (1, 2, 3)},
                   lambda: {f"{n} deep": {"n_layers": n} for n in (1, 2)}),
        "remedies": (lambda: {"plain": {"n_layers": 3}, "dropout": {"n_layers": 3, "dropout": 0.5},
                              "norm": {"n_layers": 3, "norm": True}},
                     lambda: {f"{n} {d} {norm}": {"n_layers": n, "dropout": d, "norm": norm} for n, d,
                              norm in ((1, 0, False), (3, 0.5, False), (3, 0, True), (3, 0.5, True))}),
    },
    "06_functions": {"width_for": (lambda n_in, depth, most: most // (n_in + 2), lambda n_in, depth,
                                   most: max(1, int((most / depth) ** 0.5)))},
}
