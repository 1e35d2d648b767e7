"""Networks with published weights: optical flow, detectors, features, segmentation."""
