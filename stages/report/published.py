"""What authors publish for their methods: micro AUC in percent, by their own rule.

method -> label set -> (AUC, source). MAMA's figures are in a picture of its paper, and are not quoted here. On Avenue
MNAD and LGN-Net are judged on Hasan's labels, STATE on its makers' masks: not on one scale.
"""

MNAD = "Park et al., CVPR 2020, table 1; reproductions find 94 to 95 on Ped2 with the prediction"
LGN = "authors' README"
RECALLED = "as recalled, not looked up: arXiv 2301.12048"

PUBLISHED = {
    "mnad": {"ped2": (97.0, MNAD), "avenue-hasan2016": (88.5, MNAD), "shanghaitech": (70.5, MNAD)},
    "mnad_recon": {"ped2": (90.2, MNAD), "avenue-hasan2016": (82.8, MNAD), "shanghaitech": (69.8, MNAD)},
    "lgn_net": {"ped2": (97.1, LGN), "avenue-hasan2016": (89.3, LGN), "shanghaitech": (73.0, LGN)},
    "state": {"avenue-official-masks": (90.3, RECALLED), "shanghaitech": (77.8, RECALLED)},
    "s3r": {"shanghaitech-s3r": (97.40, "authors' README"), "ucf_crime-s3r": (85.99, "authors' README")},
}
