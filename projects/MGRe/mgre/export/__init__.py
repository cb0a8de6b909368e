"""From a checkpoint to files that other runtimes load, each checked against PyTorch before it gets its name."""
