"""Metrics, predictions and reports of a trained classifier."""
