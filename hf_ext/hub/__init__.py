"""From a model's folder to the Hub."""
