"""What the package needs of the machine: files, downloads, signals, random states, other processes."""
