"""Vigil: a reproducible pipeline for video anomaly detection."""
