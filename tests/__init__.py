"""The tests of hf_ext. A package, because a distribution in the environment may bring a folder of this name."""
