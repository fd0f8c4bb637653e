"""The numbers printed in the paper: AUROC in percent, each with its table as source.

Keys are this project's names of categories and of the options in `conf/ablation`, `conf/backbone` and `conf/loss`, or
values of settings. `mean` is the paper's own row, not computed from the others.
"""

from typing import NamedTuple


class Cases(NamedTuple):
    """The paper's own method in both cases.

    Attributes:
        unified: one model for all categories, mean over 5 seeds.
        deviation: of it over the 5 seeds.
        separate: one model for each category.
    """

    unified: float
    deviation: float
    separate: float


class Auroc(NamedTuple):
    """One row of an ablation, in the unified case.

    Attributes:
        detection: AUROC of images.
        localization: AUROC of pixels.
    """

    detection: float
    localization: float


class Size(NamedTuple):
    """One column of Table A7.

    Attributes:
        gflops: 1e9 operations for one image of 224 x 224; the paper does not define which operations.
        learnable: millions of parameters.
    """

    gflops: float
    learnable: float


SEEDS = 5  # Sec. 4.2, appendix B.4

# Table 1: detection on MVTec-AD, AUROC of images.
TABLE_1 = {
    "bottle": Cases(99.7, 0.04, 100.0),
    "cable": Cases(95.2, 0.84, 97.6),
    "capsule": Cases(86.9, 0.73, 85.3),
    "hazelnut": Cases(99.8, 0.10, 99.9),
    "metal_nut": Cases(99.2, 0.09, 99.0),
    "pill": Cases(93.7, 0.65, 88.3),
    "screw": Cases(87.5, 0.57, 91.9),
    "toothbrush": Cases(94.2, 0.20, 95.0),
    "transistor": Cases(99.8, 0.09, 100.0),
    "zipper": Cases(95.8, 0.51, 96.7),
    "carpet": Cases(99.8, 0.02, 99.9),
    "grid": Cases(98.2, 0.26, 98.5),
    "leather": Cases(100.0, 0.00, 100.0),
    "tile": Cases(99.3, 0.14, 99.0),
    "wood": Cases(98.6, 0.08, 97.9),
    "mean": Cases(96.5, 0.08, 96.6),
}
# Table 1: the other methods, each unified and separate.
TABLE_1_METHODS = ("US", "PSVDD", "PaDiM", "CutPaste", "MKD", "DRAEM")
TABLE_1_OTHERS = {
    "bottle": ((84.0, 99.0), (85.5, 98.6), (97.9, 99.9), (67.9, 98.2), (98.7, 99.4), (97.5, 99.2)),
    "cable": ((60.0, 86.2), (64.4, 90.3), (70.9, 92.7), (69.2, 81.2), (78.2, 89.2), (57.8, 91.8)),
    "capsule": ((57.6, 86.1), (61.3, 76.7), (73.4, 91.3), (63.0, 98.2), (68.3, 80.5), (65.3, 98.5)),
    "hazelnut": ((95.8, 93.1), (83.9, 92.0), (85.5, 92.0), (80.9, 98.3), (97.1, 98.4), (93.7, 100.0)),
    "metal_nut": ((62.7, 82.0), (80.9, 94.0), (88.0, 98.7), (60.0, 99.9), (64.9, 73.6), (72.8, 98.7)),
    "pill": ((56.1, 87.9), (89.4, 86.1), (68.8, 93.3), (71.4, 94.9), (79.7, 82.7), (82.2, 98.9)),
    "screw": ((66.9, 54.9), (80.9, 81.3), (56.9, 85.8), (85.2, 88.7), (75.6, 83.3), (92.0, 93.9)),
    "toothbrush": ((57.8, 95.3), (99.4, 100.0), (95.3, 96.1), (63.9, 99.4), (75.3, 92.2), (90.6, 100.0)),
    "transistor": ((61.0, 81.8), (77.5, 91.5), (86.6, 97.4), (57.9, 96.1), (73.4, 85.6), (74.8, 93.1)),
    "zipper": ((78.6, 91.9), (77.8, 97.9), (79.7, 90.3), (93.5, 99.9), (87.4, 93.2), (98.8, 100.0)),
    "carpet": ((86.6, 91.6), (63.3, 92.9), (93.8, 99.8), (93.6, 93.9), (69.8, 79.3), (98.0, 97.0)),
    "grid": ((69.2, 81.0), (66.0, 94.6), (73.9, 96.7), (93.2, 100.0), (83.8, 78.0), (99.3, 99.9)),
    "leather": ((97.2, 88.2), (60.8, 90.9), (99.9, 100.0), (93.4, 100.0), (93.6, 95.1), (98.7, 100.0)),
    "tile": ((93.7, 99.1), (88.3, 97.8), (93.3, 98.1), (88.6, 94.6), (89.5, 91.6), (99.8, 99.6)),
    "wood": ((90.6, 97.7), (72.1, 96.5), (98.4, 99.2), (80.4, 99.1), (93.4, 94.3), (99.8, 99.1)),
    "mean": ((74.5, 87.7), (76.8, 92.1), (84.2, 95.5), (77.5, 96.1), (81.9, 87.8), (88.1, 98.0)),
}

# Table 2: localization on MVTec-AD, AUROC of pixels.
TABLE_2 = {
    "bottle": Cases(98.1, 0.04, 98.1),
    "cable": Cases(97.3, 0.10, 96.8),
    "capsule": Cases(98.5, 0.01, 97.9),
    "hazelnut": Cases(98.1, 0.10, 98.8),
    "metal_nut": Cases(94.8, 0.09, 95.7),
    "pill": Cases(95.0, 0.16, 95.1),
    "screw": Cases(98.3, 0.08, 97.4),
    "toothbrush": Cases(98.4, 0.03, 97.8),
    "transistor": Cases(97.9, 0.19, 98.7),
    "zipper": Cases(96.8, 0.24, 96.0),
    "carpet": Cases(98.5, 0.01, 98.0),
    "grid": Cases(96.5, 0.04, 94.6),
    "leather": Cases(98.8, 0.03, 98.3),
    "tile": Cases(91.8, 0.10, 91.8),
    "wood": Cases(93.2, 0.08, 93.4),
    "mean": Cases(96.8, 0.02, 96.6),
}
# Table 2: the other methods, each unified and separate.
TABLE_2_METHODS = ("US", "PSVDD", "PaDiM", "FCDD", "MKD", "DRAEM")
TABLE_2_OTHERS = {
    "bottle": ((67.9, 97.8), (86.7, 98.1), (96.1, 98.2), (56.0, 97.0), (91.8, 96.3), (87.6, 99.1)),
    "cable": ((78.3, 91.9), (62.2, 96.8), (81.0, 96.7), (64.1, 90.0), (89.3, 82.4), (71.3, 94.7)),
    "capsule": ((85.5, 96.8), (83.1, 95.8), (96.9, 98.6), (67.6, 93.0), (88.3, 95.9), (50.5, 94.3)),
    "hazelnut": ((93.7, 98.2), (97.4, 97.5), (96.3, 98.1), (79.3, 95.0), (91.2, 94.6), (96.9, 99.7)),
    "metal_nut": ((76.6, 97.2), (96.0, 98.0), (84.8, 97.3), (57.5, 94.0), (64.2, 86.4), (62.2, 99.5)),
    "pill": ((80.3, 96.5), (96.5, 95.1), (87.7, 95.7), (65.9, 81.0), (69.7, 89.6), (94.4, 97.6)),
    "screw": ((90.8, 97.4), (74.3, 95.7), (94.1, 98.4), (67.2, 86.0), (92.1, 96.0), (95.5, 97.6)),
    "toothbrush": ((86.9, 97.9), (98.0, 98.1), (95.6, 98.8), (60.8, 94.0), (88.9, 96.1), (97.7, 98.1)),
    "transistor": ((68.3, 73.7), (78.5, 97.0), (92.3, 97.6), (54.2, 88.0), (71.7, 76.5), (64.5, 90.9)),
    "zipper": ((84.2, 95.6), (95.1, 95.1), (94.8, 98.4), (63.0, 92.0), (86.1, 93.9), (98.3, 98.8)),
    "carpet": ((88.7, 93.5), (78.6, 92.6), (97.6, 99.0), (68.6, 96.0), (95.5, 95.6), (98.6, 95.5)),
    "grid": ((64.5, 89.9), (70.8, 96.2), (71.0, 97.1), (65.8, 91.0), (82.3, 91.8), (98.7, 99.7)),
    "leather": ((95.4, 97.8), (93.5, 97.4), (84.8, 99.0), (66.3, 98.0), (96.7, 98.1), (97.3, 98.6)),
    "tile": ((82.7, 92.5), (92.1, 91.4), (80.5, 94.1), (59.3, 91.0), (85.3, 82.8), (98.0, 99.2)),
    "wood": ((83.3, 92.1), (80.7, 90.8), (89.1, 94.1), (53.3, 88.0), (80.5, 84.8), (96.0, 96.4)),
    "mean": ((81.8, 93.9), (85.6, 95.7), (89.5, 97.4), (63.3, 92.0), (84.9, 90.7), (87.2, 97.3)),
}

# Table 3: detection on CIFAR-10, five classes (in alphabetical order) against the other five: mean, deviation.
TABLE_3 = {
    "01234": (80.1, 0.08),
    "56789": (73.8, 0.08),
    "02468": (88.8, 0.20),
    "13579": (85.6, 0.10),
    "mean": (82.1, 0.08),
}
# Table 3: the other methods.
TABLE_3_METHODS = ("US", "FCDD", "FCDD+OE", "PANDA", "MKD")
TABLE_3_OTHERS = {
    "01234": (51.3, 55.0, 71.8, 66.6, 64.2),
    "56789": (51.3, 50.3, 73.7, 73.2, 69.3),
    "02468": (63.9, 59.2, 85.3, 77.1, 76.4),
    "13579": (56.8, 58.5, 85.0, 72.9, 78.7),
    "mean": (55.9, 55.8, 78.9, 72.4, 72.1),
}

# Table 4: methods with transformers on MVTec-AD; unified, then separate. The last two are the paper's own.
TABLE_4 = {
    "InTra": (Auroc(65.3, 70.6), Auroc(95.0, 96.6)),
    "VT-ADL": (Auroc(55.4, 64.4), Auroc(78.7, 82.0)),
    "AnoVit": (Auroc(69.6, 68.4), Auroc(78.0, 83.0)),
    "one_query": (Auroc(87.6, 92.8), Auroc(94.7, 95.8)),
    "layer_wise_mask_jitter": (Auroc(96.5, 96.8), Auroc(96.6, 96.6)),
}

# Table A2: queries in no, the first or every decoder layer, neighbor mask, feature jitter.
TABLE_A2 = {
    "no_query": Auroc(69.5, 79.4),
    "one_query": Auroc(87.6, 92.8),
    "one_query_mask": Auroc(96.1, 96.3),
    "one_query_jitter": Auroc(95.0, 95.8),
    "one_query_mask_jitter": Auroc(96.2, 96.6),
    "layer_wise": Auroc(95.0, 96.5),
    "layer_wise_mask": Auroc(95.8, 96.5),
    "layer_wise_jitter": Auroc(94.9, 96.2),
    "layer_wise_mask_jitter": Auroc(96.5, 96.8),
}

# Table 5a: six rows of Table A2, with the same numbers.
_ROWS_5A = ("no_query", "one_query", "layer_wise", "one_query_mask", "one_query_jitter", "layer_wise_mask_jitter")
TABLE_5A = {name: TABLE_A2[name] for name in _ROWS_5A}

# Table 5b: numbers of encoder and decoder layers.
TABLE_5B = {
    ("transformer", 4, 0): Auroc(69.8, 79.2),
    ("transformer", 0, 4): Auroc(80.5, 88.3),
    ("transformer", 2, 2): Auroc(84.7, 90.6),
    ("transformer", 4, 4): Auroc(87.6, 92.8),
    ("transformer", 6, 6): Auroc(86.1, 91.9),
    ("uniad", 4, 0): Auroc(94.9, 96.0),
    ("uniad", 0, 4): Auroc(96.1, 96.3),
    ("uniad", 2, 2): Auroc(95.1, 96.0),
    ("uniad", 4, 4): Auroc(96.5, 96.8),
    ("uniad", 6, 6): Auroc(96.5, 96.7),
}

# Table 5c: side of the masked window.
TABLE_5C = {1: Auroc(94.6, 96.3), 5: Auroc(96.4, 96.8), 7: Auroc(96.5, 96.8), 9: Auroc(96.3, 96.7)}

# Table 5d: which attentions are masked: the encoder's, the decoder's first, its second.
TABLE_5D = {
    (True, False, False): Auroc(95.8, 96.3),
    (True, True, False): Auroc(96.4, 96.8),
    (True, False, True): Auroc(96.5, 96.7),
    (True, True, True): Auroc(96.5, 96.8),
}

# Table 5e: scale of the feature jitter.
TABLE_5E = {5: Auroc(96.1, 96.7), 10: Auroc(96.4, 96.7), 20: Auroc(96.5, 96.8), 30: Auroc(95.7, 96.6)}

# Table 5f: probability of the feature jitter.
TABLE_5F = {0.25: Auroc(95.6, 96.5), 0.5: Auroc(95.8, 96.7), 0.75: Auroc(96.3, 96.7), 1: Auroc(96.5, 96.8)}

# Table A3: the vanilla decoder and the designs of Fig. A1, without and with both neighbor mask and feature jitter.
TABLE_A3 = {
    ("one_query", False): Auroc(87.6, 92.8),
    ("a", False): Auroc(95.0, 96.5),
    ("b", False): Auroc(94.4, 96.3),
    ("c", False): Auroc(78.4, 87.0),
    ("d", False): Auroc(77.9, 87.0),
    ("e", False): Auroc(78.2, 89.9),
    ("f", False): Auroc(89.8, 94.0),
    ("a", True): Auroc(96.5, 96.8),
    ("b", True): Auroc(96.3, 96.7),
    ("f", True): Auroc(96.0, 96.6),
}

# Table A4: the loss.
TABLE_A4 = {"mse": Auroc(96.5, 96.8), "normalized_mse": Auroc(96.4, 96.9), "cosine": Auroc(96.6, 96.8)}

# Table A5: the backbone trained, or frozen.
TABLE_A5 = {True: Auroc(65.9, 65.5), False: Auroc(96.5, 96.8)}

# Table A6: the backbone.
TABLE_A6 = {
    "resnet18": Auroc(92.4, 95.8),
    "resnet34": Auroc(93.0, 96.2),
    "resnet50": Auroc(92.4, 96.0),
    "resnet101": Auroc(92.2, 95.9),
    "efficientnet_b0": Auroc(96.1, 96.4),
    "efficientnet_b2": Auroc(96.2, 97.0),
    "efficientnet_b4": Auroc(96.5, 96.8),
    "efficientnet_b6": Auroc(96.0, 96.7),
}

# Table A7: complexity at inference.
TABLE_A7 = {
    "US": Size(60.32, 9.55),
    "PSVDD": Size(149.74, 0.41),
    "PaDiM": Size(23.25, 950.36),
    "CutPaste": Size(3.65, 13.61),
    "FCDD": Size(13.16, 4.51),
    "MKD": Size(32.11, 0.34),
    "DRAEM": Size(245.15, 69.05),
    "UniAD": Size(6.46, 7.48),
}
