"""What trains more than once: the learning-rate range test."""
