"""The torch engine's whole table on one GPU, in one command (bench/torch.md).

``rows`` names what is measured, the most important first; ``__main__`` has a child measure one row after the
other, ends what takes too long and keeps every figure as it comes; ``report`` holds them against the targets.
"""
