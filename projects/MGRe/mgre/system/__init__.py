"""Services around the machine: files, downloads, signals, random states, other processes, other libraries' errors."""
