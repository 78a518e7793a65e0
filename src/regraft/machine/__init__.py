"""What this computer is: processors, memory, processes, errors of the disk."""
